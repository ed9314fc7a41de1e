"""A file keeps every checkpoint that continues what it holds, whatever breaks meanwhile."""

import errno
import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witnesses import LOG, ORIGIN, POLICY, REWRITTEN, head_of

from compliance.audit.checkpoint import Policy
from compliance.audit.keys import SigningKey
from compliance.errors import (
    AnchorUnavailable,
    InvalidProof,
    LogForked,
    LogRolledBack,
)
from worker.anchors import Head
from worker.anchors.kinds import file as files
from worker.anchors.kinds.file import FileAnchor, last_checkpoint

NAME = "example.com%2Flog%2F2026.notes"


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    return FileAnchor("disk", tmp_path)


def test_every_checkpoint_is_appended_once(anchor: FileAnchor) -> None:
    heads = [head_of(size) for size in (0, 1, 7, 300)]
    for head in heads:
        assert anchor.push(head) == anchor.push(head) == b""

    assert (anchor.folder / NAME).read_bytes() == b"".join(head.note + b"\n" for head in heads)


def test_each_log_has_a_file_of_its_own(anchor: FileAnchor) -> None:
    next_year = SigningKey.from_seed("example.com/log/2027", b"l" * 32)
    anchor.push(head_of(300))
    anchor.push(head_of(1, key=next_year))

    assert sorted(path.name for path in anchor.folder.iterdir()) == [NAME, NAME.replace("2026", "2027")]


def test_a_name_of_a_log_does_not_lead_out_of_the_folder(anchor: FileAnchor) -> None:
    anchor.push(head_of(1, key=SigningKey.from_seed("../..", b"l" * 32)))

    assert [path.name for path in anchor.folder.iterdir()] == ["..%2F...notes"]


@pytest.mark.parametrize(
    ("earlier", "later", "error"),
    [
        (head_of(200), head_of(199), LogRolledBack),
        (head_of(1), head_of(0), LogRolledBack),
        (head_of(200), head_of(200, REWRITTEN), LogForked),
        (head_of(200), head_of(300, REWRITTEN), LogForked),
        (head_of(200), head_of(100, REWRITTEN), LogRolledBack),
    ],
    ids=["shorter", "emptied", "same size", "longer", "shorter and other"],
)
def test_what_does_not_continue_the_file_is_refused_and_not_written(
    earlier: Head, later: Head, error: type[Exception], anchor: FileAnchor
) -> None:
    anchor.push(earlier)
    before = (anchor.folder / NAME).read_bytes()

    with pytest.raises(error, match=f"anchor disk holds size {earlier.checkpoint.size} of {ORIGIN}"):
        anchor.push(later)

    assert (anchor.folder / NAME).read_bytes() == before


@given(place=st.integers(0, len(head_of(7).note) + 1), again=st.integers(0, len(head_of(9).note) + 1))
def test_a_note_that_a_crash_cut_off_is_passed_over(
    place: int, again: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    anchor = FileAnchor("disk", tmp_path_factory.mktemp("disk"))
    path = anchor.folder / NAME
    anchor.push(head_of(5))
    whole = path.read_bytes()
    path.write_bytes(whole + (head_of(7).note + b"\n")[:place])

    anchor.push(head_of(8))
    path.write_bytes(path.read_bytes() + (head_of(9).note + b"\n")[:again])
    anchor.push(head_of(10))

    assert path.read_bytes().startswith(whole)
    assert last_checkpoint(path.read_bytes(), POLICY) == head_of(10).checkpoint
    with pytest.raises(LogRolledBack):
        anchor.push(head_of(9))


@pytest.mark.parametrize("place", range(len(head_of(7).note)))
def test_even_the_first_note_may_be_cut_off(place: int, anchor: FileAnchor) -> None:
    (anchor.folder / NAME).write_bytes(head_of(7).note[:place])

    anchor.push(head_of(8))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), POLICY) == head_of(8).checkpoint


def test_a_file_with_notes_of_another_key_is_left_alone(anchor: FileAnchor) -> None:
    impostor = SigningKey.from_seed(ORIGIN, b"i" * 32)
    anchor.push(head_of(7, key=impostor))

    with pytest.raises(InvalidProof, match=r"no checkpoint of example\.com/log/2026 by a key that is known"):
        anchor.push(head_of(8))

    assert (anchor.folder / NAME).read_bytes() == head_of(7, key=impostor).note + b"\n"


def test_a_key_that_was_replaced_still_counts_for_what_it_signed(anchor: FileAnchor) -> None:
    after = SigningKey.from_seed(ORIGIN, b"n" * 32)
    both = Policy(origin=ORIGIN, keys=(LOG.verifier, after.verifier))
    anchor.push(head_of(200))

    with pytest.raises(LogForked):
        anchor.push(replace(head_of(300, REWRITTEN, key=after), policy=both))
    anchor.push(replace(head_of(300, key=after), policy=both))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), both) == head_of(300).checkpoint


def test_only_the_end_of_a_long_file_is_read(anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TAIL_BYTES", 500)
    for size in range(30):
        anchor.push(head_of(size))

    with pytest.raises(LogRolledBack, match="size 29"):
        anchor.push(head_of(28))


def test_a_folder_that_is_not_there_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(AnchorUnavailable, match=r"^anchor disk cannot be written \(FileNotFoundError\)$"):
        FileAnchor("disk", tmp_path / "nowhere").push(head_of(1))


def test_a_link_in_the_place_of_the_file_is_not_followed(anchor: FileAnchor, tmp_path: Path) -> None:
    (anchor.folder / NAME).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(AnchorUnavailable):
        anchor.push(head_of(1))

    assert not (tmp_path / "elsewhere").exists()


def test_two_processes_do_not_write_at_once(anchor: FileAnchor) -> None:
    with (anchor.folder / NAME).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(AnchorUnavailable, match="BlockingIOError"):
            anchor.push(head_of(1))

    anchor.push(head_of(1))


@pytest.mark.parametrize("taken", [0, 1, 50])
def test_a_full_disk_is_told_and_later_the_note_is_there(
    taken: int, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor.push(head_of(5))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", lambda handle, data: write(handle, data[:taken]))
        with pytest.raises(AnchorUnavailable, match="is the disk full"):
            anchor.push(head_of(6))

    anchor.push(head_of(7))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), POLICY) == head_of(7).checkpoint


def test_a_disk_that_fails_is_told(anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int) -> None:
        raise OSError(errno.EIO, "private")

    monkeypatch.setattr(files.os, "fsync", fails)

    with pytest.raises(AnchorUnavailable, match=r"cannot be written \(OSError\)$"):
        anchor.push(head_of(1))


# The file of anchors
