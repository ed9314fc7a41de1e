"""Whatever is done to the files of a segment is found and named."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segments import (
    HASHES,
    LOG,
    LONG,
    ORIGIN,
    POLICY,
    faults,
    files_of,
    flip,
    kept_tiles,
    signed,
    verified,
    written,
)

from compliance.audit.checkpoint import Checkpoint, sign_checkpoint
from compliance.audit.keys import KeyType, SigningKey
from compliance.audit.merkle import prove_inclusion, root_of, verify_inclusion
from compliance.audit.segment import Fault, verify_segment
from compliance.audit.segment import verify as verification
from compliance.audit.tiles import (
    Bundle,
    Tile,
    bundle_bytes,
    bundles_between,
    nodes_in_tiles,
    parse_bundle,
    tiles_between,
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segment of 66,000 entries; never changed."""
    return written(tmp_path_factory.mktemp("long"), LONG)


@pytest.fixture(scope="module")
def range_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same from entry 65,792 on; never changed."""
    return written(tmp_path_factory.mktemp("range"), LONG, 65_792)


@pytest.fixture
def copy(long: Path, tmp_path: Path) -> Path:
    """The segment of 66,000 entries, to be damaged."""
    return Path(shutil.copytree(long, tmp_path / "copy", copy_function=os.link))


@pytest.fixture
def copied_range(range_: Path, tmp_path: Path) -> Path:
    """The range, to be damaged."""
    return Path(shutil.copytree(range_, tmp_path / "range"))


def damage(path: Path, content: bytes | None) -> None:
    """Put *content* in the place of a file whose bytes a link may share."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@given(size=st.integers(0, 600), data=st.data())
def test_what_was_written_verifies_for_every_size_and_range(size: int, data: st.DataObject) -> None:
    begin = data.draw(st.sampled_from([place for place in (0, 256, 512) if place < size or place == 0]))
    with TemporaryDirectory() as folder:
        path = written(Path(folder), size, begin)
        report = verified(path, begin)

        places = [*kept_tiles(begin, size), *bundles_between(begin, size)]
        assert (report.findings, report.is_ok, report.entries) == ((), True, size - begin)
        assert files_of(path) == {"checkpoint", *(place.path for place in places)}
        assert [found.name for found in Path(folder).iterdir()] == [path.name]


@pytest.mark.parametrize("begin", [0, 256, 65_280, 65_536, 65_792])
def test_every_file_of_a_range_holds_what_the_whole_log_holds_there(begin: int, long: Path, tmp_path: Path) -> None:
    path = written(tmp_path, LONG, begin)

    assert files_of(path) == {"checkpoint", *(tile.path for tile in kept_tiles(begin, LONG))} | {
        bundle.path for bundle in bundles_between(begin, LONG)
    }
    assert [name for name in files_of(path) if (path / name).read_bytes() != (long / name).read_bytes()] == []
    assert verified(path, begin).is_ok


def test_a_range_still_proves_each_of_its_entries(range_: Path) -> None:
    node = nodes_in_tiles(LONG, read=lambda tile: (range_ / tile.path).read_bytes())

    for index in (65_792, 65_999):
        proof = prove_inclusion(index, size=LONG, node=node)
        verify_inclusion(proof, leaf=HASHES[index], index=index, size=LONG, root=root_of(HASHES))


def test_the_report_says_who_signed_and_what_was_looked_at(long: Path) -> None:
    seen: list[int] = []

    report = verify_segment(long, policy=POLICY, processes=1, on_progress=seen.append)

    assert report.signed is not None
    assert (report.signed.checkpoint.size, report.signed.signatures[0].verifier) == (LONG, LOG.verifier)
    assert (sum(seen), report.entries, report.begin, len(seen)) == (LONG, LONG, 0, 10)


@given(data=st.data())
def test_every_single_changed_byte_is_found_and_the_file_named(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = written(Path(folder), 600)
        name = data.draw(st.sampled_from(sorted(files_of(path))))
        place = data.draw(st.integers(0, (path / name).stat().st_size - 1))
        flip(path / name, place, data.draw(st.integers(1, 255)))
        report = verified(path)

        assert {finding.path for finding in report.findings} == {name}
        assert not report.is_ok


@given(index=st.integers(0, 599), data=st.data())
def test_a_changed_byte_of_an_entry_names_that_entry_alone(index: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = written(Path(folder), 600)
        bundle = Bundle(index // 256, min(256, 600 - index // 256 * 256))
        entries = parse_bundle((path / bundle.path).read_bytes(), width=bundle.width)
        place = data.draw(st.integers(0, len(entries[index % 256]) - 1))
        before = len(bundle_bytes(entries[: index % 256])) if index % 256 else 0
        flip(path / bundle.path, before + 2 + place)

        assert faults(path) == [(Fault.MODIFIED_ENTRY, bundle.path, index)]


@pytest.mark.parametrize(
    ("change", "index"),
    [
        (lambda data: data[:-1], 599),
        (lambda data: data + b"\0", 599),
        (lambda data: data + b"\0\0", 599),
        (lambda data: b"\xff" + data[1:], 512),
        (lambda data: data[:0], 512),
        (lambda data: data * 2, 599),
        (lambda data: data[:2] + bundle_bytes([b"x"]) + data[2:], 512),
    ],
    ids=["cut", "byte", "entry", "length", "empty", "twice", "inserted"],
)
def test_a_bundle_of_another_form_is_named_with_the_first_entry_in_doubt(
    change: Callable[[bytes], bytes], index: int, tmp_path: Path
) -> None:
    path = written(tmp_path, 600)
    bundle = path / Bundle(2, 88).path
    bundle.write_bytes(change(bundle.read_bytes()))

    assert faults(path) == [(Fault.WRONG_BUNDLE, Bundle(2, 88).path, index)]


def test_swapped_entries_are_both_named(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    bundle = path / Bundle(1).path
    entries = parse_bundle(bundle.read_bytes(), width=256)
    entries[3], entries[9] = entries[9], entries[3]
    bundle.write_bytes(bundle_bytes(entries))

    assert faults(path) == [
        (Fault.MODIFIED_ENTRY, Bundle(1).path, 259),
        (Fault.MODIFIED_ENTRY, Bundle(1).path, 265),
    ]


def test_swapped_bundles_are_both_found(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    first, second = (path / Bundle(index).path for index in range(2))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)

    assert {index for _, _, index in faults(path)} == set(range(512))


EVERY_FILE = sorted(
    {"checkpoint"}
    | {tile.path for tile in tiles_between(0, LONG) if tile.level}
    | {
        Tile(0, 0).path,
        Tile(0, 257, 208).path,
        Bundle(0).path,
        Bundle(255).path,
        Bundle(257, 208).path,
    }
)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_missing_file_is_named_and_nothing_else(name: str, copy: Path) -> None:
    damage(copy / name, None)

    assert [(fault, path) for fault, path, _ in faults(copy)] == [(Fault.MISSING_FILE, name)]


@pytest.mark.parametrize("name", [name for name in EVERY_FILE if "entries" not in name and name != "checkpoint"])
@pytest.mark.parametrize("change", ["first", "last", "short", "long", "empty"])
def test_a_wrong_tile_is_named_and_nothing_else(name: str, change: str, copy: Path) -> None:
    data = bytearray((copy / name).read_bytes())
    if change == "first":
        data[0] ^= 1
    elif change == "last":
        data[-1] ^= 128
    damage(copy / name, {"short": bytes(data[:-1]), "long": bytes(data) + b"x", "empty": b""}.get(change, bytes(data)))

    assert faults(copy) == [(Fault.WRONG_TILE, name, None)]


def test_all_tiles_can_be_missing_when_every_entry_is_there(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    shutil.rmtree(path / "tile/0")
    shutil.rmtree(path / "tile/1")

    assert sorted(faults(path)) == sorted((Fault.MISSING_FILE, tile.path, None) for tile in tiles_between(0, 600))


def test_a_tile_and_an_entry_below_it_are_both_named(copy: Path) -> None:
    for name, place in ((Tile(1, 0).path, 40), (Bundle(1).path, 3)):
        data = bytearray((copy / name).read_bytes())
        data[place] ^= 1
        damage(copy / name, bytes(data))

    assert faults(copy) == [(Fault.WRONG_TILE, Tile(1, 0).path, None), (Fault.MODIFIED_ENTRY, Bundle(1).path, 256)]


def test_where_neither_tile_nor_bundle_is_right_the_entries_are_unproven(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    flip(path / Tile(0, 1).path, 5)
    flip(path / Bundle(1).path, 5)

    assert faults(path) == [(Fault.WRONG_TILE, Tile(0, 1).path, None), (Fault.UNPROVEN, Bundle(1).path, 256)]


def test_a_tile_that_nothing_can_replace_leaves_what_is_below_unproven(copy: Path) -> None:
    for name in (Tile(1, 0).path, Tile(0, 7).path):
        data = bytearray((copy / name).read_bytes())
        data[0] ^= 1
        damage(copy / name, bytes(data))
    entries = bytearray((copy / Bundle(9).path).read_bytes())
    entries[-1] ^= 1
    damage(copy / Bundle(9).path, bytes(entries))

    assert faults(copy) == [
        (Fault.WRONG_TILE, Tile(1, 0).path, None),
        (Fault.UNPROVEN, Tile(1, 0).path, 0),
        (Fault.MODIFIED_ENTRY, Bundle(7).path, 7 * 256),
        (Fault.MODIFIED_ENTRY, Bundle(9).path, 10 * 256 - 1),
    ]


def test_an_edge_that_nothing_can_replace_is_a_wrong_root(copy: Path) -> None:
    for name in (Tile(1, 1, 1).path, Tile(0, 256).path):
        data = bytearray((copy / name).read_bytes())
        data[0] ^= 1
        damage(copy / name, bytes(data))

    assert faults(copy)[:2] == [(Fault.WRONG_ROOT, "checkpoint", None), (Fault.UNPROVEN, "checkpoint", 0)]


def test_an_edge_that_is_missing_and_cannot_be_replaced_is_named_too(copy: Path) -> None:
    damage(copy / Tile(2, 0, 1).path, None)
    damage(copy / Tile(1, 0).path, None)
    damage(copy / Tile(0, 0).path, None)
    damage(copy / Bundle(0).path, None)

    assert {(fault, path) for fault, path, _ in faults(copy)} >= {
        (Fault.MISSING_FILE, Tile(2, 0, 1).path),
        (Fault.MISSING_FILE, Tile(1, 0).path),
        (Fault.MISSING_FILE, Tile(0, 0).path),
        (Fault.MISSING_FILE, Bundle(0).path),
        (Fault.WRONG_ROOT, "checkpoint"),
    }


def test_a_hash_of_what_was_pruned_can_only_be_trusted_or_not(copied_range: Path) -> None:
    flip(copied_range / Tile(2, 0, 1).path, 0)

    assert faults(copied_range, 65_792) == [
        (Fault.WRONG_ROOT, "checkpoint", None),
        (Fault.UNPROVEN, "checkpoint", 65_792),
    ]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (255 * 32, [(Fault.WRONG_TILE, "tile/1/000", None)]),
        (254 * 32, [(Fault.WRONG_TILE, "tile/1/000", None), (Fault.UNPROVEN, "tile/1/000", 65_280)]),
        (None, [(Fault.MISSING_FILE, "tile/1/000", None), (Fault.UNPROVEN, "tile/1/000", 65_280)]),
    ],
    ids=["kept below", "pruned below", "missing"],
)
def test_a_tile_across_the_boundary_is_replaced_where_what_is_below_was_kept(
    place: int | None, found: list[tuple[Fault, str, int | None]], tmp_path: Path
) -> None:
    path = written(tmp_path, LONG, 65_280)
    if place is None:
        (path / "tile/1/000").unlink()
    else:
        flip(path / "tile/1/000", place)

    assert faults(path, 65_280) == found


def test_a_tile_above_the_boundary_of_a_range_is_replaced_from_below(copied_range: Path) -> None:
    damage(copied_range / Tile(0, 257, 208).path, None)

    assert faults(copied_range, 65_792) == [(Fault.MISSING_FILE, Tile(0, 257, 208).path, None)]


def test_a_range_does_not_pass_for_the_whole_log(range_: Path) -> None:
    found = faults(range_)

    assert (Fault.MISSING_FILE, Bundle(0).path, 0) in found
    assert not verified(range_).is_ok
    assert verified(range_, 65_792).is_ok


def test_the_whole_log_does_not_pass_for_a_range(tmp_path: Path) -> None:
    path = written(tmp_path, 600)

    assert faults(path, 256) == [
        (Fault.SUPERFLUOUS_FILE, Tile(0, 0).path, None),
        (Fault.SUPERFLUOUS_FILE, Bundle(0).path, None),
    ]


@pytest.mark.parametrize(
    "name",
    ["key", "tile/0/003", "tile/0/002.p/87", "tile/entries/002", "tile/2/000.p/1", "tile/entries/0000", "tile/x"],
)
def test_a_superfluous_file_is_named(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    (path / name).parent.mkdir(exist_ok=True, parents=True)
    (path / name).write_bytes(b"x")

    assert faults(path) == [(Fault.SUPERFLUOUS_FILE, name, None)]


def test_a_name_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    (path / "a\x1b[2Jb\udcff").write_bytes(b"")

    (finding,) = verified(path).findings

    assert finding.path == r"a\x1b[2Jb\udcff"
    assert str(finding) == rf"SUPERFLUOUS-FILE a\x1b[2Jb\udcff: {finding.why}"


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    bundle, tile = path / Bundle(0).path, path / Tile(0, 1).path
    elsewhere = tmp_path / "elsewhere"
    tile.rename(elsewhere)
    tile.symlink_to(elsewhere)
    bundle.unlink()
    os.mkfifo(bundle)

    assert sorted(faults(path)) == sorted(
        [
            (Fault.SUPERFLUOUS_FILE, Bundle(0).path, None),
            (Fault.SUPERFLUOUS_FILE, Tile(0, 1).path, None),
            (Fault.MISSING_FILE, Bundle(0).path, 0),
            (Fault.MISSING_FILE, Tile(0, 1).path, None),
        ]
    )


def test_a_checkpoint_of_another_key_is_a_bad_signature_and_nothing_is_believed(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    (path / "checkpoint").write_bytes(signed(600, SigningKey.from_seed(ORIGIN, b"x" * 32)))
    report = verified(path)

    assert [finding.fault for finding in report.findings] == [Fault.BAD_SIGNATURE]
    assert (report.signed, report.entries, report.is_ok) == (None, 0, False)


@pytest.mark.parametrize("content", [b"", b"x" * 100_000, b"\xff", b"example.com/log\n600\n"])
def test_what_is_no_checkpoint_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    (path / "checkpoint").write_bytes(content)

    assert faults(path) == [(Fault.BAD_CHECKPOINT, "checkpoint", None)]


def test_a_checkpoint_of_a_tree_with_another_root_is_a_wrong_root(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    other = Checkpoint(origin=ORIGIN, size=600, root=root_of([*HASHES[:599], b"x" * 32]))
    (path / "checkpoint").write_bytes(sign_checkpoint(other, [LOG]))

    assert faults(path) == [(Fault.WRONG_ROOT, "checkpoint", None), (Fault.UNPROVEN, "checkpoint", 0)]


def test_an_older_checkpoint_makes_the_newer_files_superfluous(tmp_path: Path) -> None:
    path = written(tmp_path, 600)
    (path / "checkpoint").write_bytes(signed(512))

    assert {fault for fault, _, _ in faults(path)} == {Fault.SUPERFLUOUS_FILE}


def test_quorum_of_the_policy_counts(long: Path) -> None:
    witness = SigningKey.from_seed("w.example", b"w" * 32, kind=KeyType.COSIGNATURE_V1)
    policy = replace(POLICY, witnesses=(witness.verifier,), quorum=1)

    assert [found.fault for found in verify_segment(long, policy=policy).findings] == [Fault.BAD_SIGNATURE]


def test_findings_are_counted_beyond_those_that_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path, 2000)
    for bundle in bundles_between(0, 2000):
        entries = parse_bundle((path / bundle.path).read_bytes(), width=bundle.width)
        (path / bundle.path).write_bytes(bundle_bytes([entry + b"!" for entry in entries]))
    report = verified(path)

    assert (len(report.findings), report.found, report.entries) == (1000, 2000, 2000)


def test_several_processes_find_the_same(copy: Path) -> None:
    data = bytearray((copy / Bundle(77).path).read_bytes())
    data[4] ^= 1
    damage(copy / Bundle(77).path, bytes(data))
    seen: list[int] = []

    together = verify_segment(copy, policy=POLICY, processes=2, on_progress=seen.append)

    assert together == verified(copy)
    assert (sum(seen), together.found) == (LONG, 1)


def test_a_long_log_is_verified_by_several_processes_and_a_short_one_is_not(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def together(*args: object) -> Iterator[object]:
        used.append(args[2])
        return iter(())

    monkeypatch.setattr(verification, "_check_together", together)
    monkeypatch.setattr(verification.os, "cpu_count", lambda: 64)
    verify_segment(long, policy=POLICY)
    monkeypatch.setattr(verification, "ALONE_BELOW", LONG)
    verify_segment(long, policy=POLICY)

    assert used == [8]
