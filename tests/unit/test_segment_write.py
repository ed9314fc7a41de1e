"""A segment is written whole or not at all."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segments import (
    HASHES,
    LEAVES,
    LONG,
    files_of,
    kept_tiles,
    signed,
    tile_of,
    verified,
    written,
)

from compliance.audit.segment import write as writing
from compliance.audit.segment import write_segment
from compliance.audit.tiles import (
    Bundle,
    Tile,
    stream_tiles,
)
from compliance.errors import InvalidPayload, InvalidProof, MalformedProof


@pytest.mark.parametrize("begin", [1, 255, 768, 600, -256])
def test_a_range_begins_at_a_multiple_of_256_within_the_log(begin: int, tmp_path: Path) -> None:
    path = written(tmp_path, 600)

    with pytest.raises(InvalidPayload, match="multiple of 256 below 600"):
        verified(path, begin)
    with pytest.raises(InvalidPayload, match="multiple of 256 below 600"):
        write_segment(tmp_path / "other", leaves=[], checkpoint=signed(600), begin=begin, read=tile_of)


def test_a_range_cannot_begin_at_its_end(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match="multiple of 256 below 512"):
        write_segment(tmp_path / "other", leaves=[], checkpoint=signed(512), begin=512, read=tile_of)


def test_a_range_cannot_be_written_without_what_is_before_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiles of what is before"):
        write_segment(tmp_path / "other", leaves=[], checkpoint=signed(600), begin=256)


def test_a_folder_that_is_not_there_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match="there is no folder nowhere"):
        verified(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")], ids=["folder", "file", "link"]
)
def test_nothing_that_exists_is_written_over(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "taken"
    make(path)

    with pytest.raises(InvalidPayload, match="taken exists already"):
        write_segment(path, leaves=LEAVES[:3], checkpoint=signed(3))

    assert [found.name for found in tmp_path.iterdir()] == ["taken"]


def test_what_appears_while_it_is_written_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def leaves() -> Iterator[bytes]:
        yield from LEAVES[:3]
        path.mkdir()
        (path / "mine").touch()

    with pytest.raises(InvalidPayload, match="log exists already"):
        write_segment(path, leaves=leaves(), checkpoint=signed(3))

    assert files_of(tmp_path) == {"log/mine"}


def test_a_folder_that_cannot_be_made_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match="log cannot be made where it should be"):
        write_segment(tmp_path / "nowhere" / "log", leaves=[], checkpoint=signed(0))


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        (LEAVES[:599], "up to 599 only"),
        ([], "up to 0 only"),
        (LEAVES[:601], "more entries than the 600"),
        (LEAVES[:856], "more entries than the 600"),
        ([*LEAVES[:599], b"x"], "are not those of the checkpoint"),
        ([b"x", *LEAVES[1:600]], "are not those of the checkpoint"),
        ([*LEAVES[:599], b"x" * 65_536], "longer than 65535"),
    ],
)
def test_leaves_that_are_not_those_of_the_checkpoint_leave_nothing(
    leaves: list[bytes], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidProof, match=words):
        write_segment(tmp_path / "log", leaves=leaves, checkpoint=signed(600))

    assert list(tmp_path.iterdir()) == []


def test_a_range_of_a_wrong_tree_leaves_nothing(tmp_path: Path) -> None:
    def wrong(tile: Tile) -> bytes:
        return b"x" * (32 * tile.width)

    with pytest.raises(InvalidProof, match="are not those of the checkpoint"):
        write_segment(tmp_path / "log", leaves=LEAVES[256:600], checkpoint=signed(600), begin=256, read=wrong)

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_checkpoint_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(MalformedProof):
        write_segment(tmp_path / "log", leaves=[], checkpoint=b"x")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(12))
def test_a_write_that_breaks_off_anywhere_leaves_nothing(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine files are written; a full disk at any of them, and at the sync of a folder."""
    calls = iter(range(100))
    sync = os.fsync

    def full(handle: int) -> None:
        if next(calls) == at:
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_segment(tmp_path / "log", leaves=LEAVES[:600], checkpoint=signed(600))

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_keep_what_was_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing._write_file

    def lossy(path: Path, data: bytes) -> None:
        write(path, data[:-1] + b"!" if path.as_posix().endswith(Bundle(1).path) else data)

    monkeypatch.setattr(writing, "_write_file", lossy)
    with pytest.raises(InvalidProof, match="MODIFIED-ENTRY entry 511"):
        write_segment(tmp_path / "log", leaves=LEAVES[:600], checkpoint=signed(600))

    assert list(tmp_path.iterdir()) == []


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    files = {found.stat().st_mode & 0o777 for found in path.rglob("*") if found.is_file()}

    assert (path.stat().st_mode & 0o777, files) == (0o700, {0o600})


def test_leaves_are_streamed(tmp_path: Path) -> None:
    """When a leaf is asked for, all bundles before its own are on disk."""
    seen: list[int] = []

    def leaves() -> Iterator[bytes]:
        for number, leaf in enumerate(LEAVES[:1024]):
            if number % 256 == 0:
                seen.append(len(list(tmp_path.glob(".log.*.part/tile/entries/*"))))
            yield leaf

    write_segment(tmp_path / "log", leaves=leaves(), checkpoint=signed(1024))

    assert seen == [0, 1, 2, 3]


@given(begin=st.sampled_from([0, 256, 512, 65_280, 65_536, 65_792]), more=st.integers(0, 500))
def test_tiles_are_streamed_as_they_are_of_the_whole_tree(begin: int, more: int) -> None:
    size = min(begin + more, LONG)

    streamed = list(stream_tiles(HASHES[begin:size], begin=begin, read=tile_of))

    assert sorted(tile for tile, _ in streamed) == kept_tiles(begin, size)
    assert all(data == tile_of(tile) for tile, data in streamed)
