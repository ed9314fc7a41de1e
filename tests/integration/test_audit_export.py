"""The sealed log as a folder that verifies alone, and what is refused instead of being exported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import SIZE, ExportedLog, an_exported_log

from compliance.audit.checkpoint import parse_checkpoint
from compliance.audit.leaf import stored_bytes
from compliance.audit.note import parse_note
from compliance.audit.receipt import make_receipt, verify_receipt
from compliance.audit.segment import open_segment
from compliance.errors import IntegrityError, InvalidPayload, InvalidProof, MalformedProof, UnknownName
from worker.embedded import Stack


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportedLog]:
    """A log that nobody alters."""
    with an_exported_log(stack, tmp_path_factory.mktemp("exported")) as found:
        yield found


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[ExportedLog]:
    with an_exported_log(stack, tmp_path) as found:
        yield found


def test_an_exported_log_verifies_alone_and_holds_what_was_sealed(shared: ExportedLog, tmp_path: Path) -> None:
    path = tmp_path / "log"
    told: list[tuple[int, int]] = []

    exported = shared.export(path=path, on_progress=lambda done, total: told.append((done, total)))

    report = shared.verify_files(path)
    assert (exported.begin, exported.checkpoint.size, exported.checkpoint.origin) == (0, SIZE, shared.log)
    assert (report.is_ok, report.entries) == (True, SIZE)
    assert told[-1] == (SIZE, SIZE)
    held = {found["_id"]: found for found in shared.entries.find()}
    assert list(open_segment(path).entries(0, SIZE)) == [stored_bytes(held[id_]) for id_ in shared.ids]


def test_a_later_part_is_exported_and_verifies_from_there(shared: ExportedLog, tmp_path: Path) -> None:
    path = tmp_path / "log"

    assert shared.export(path=path, begin=256, log=shared.log).begin == 256

    assert shared.verify_files(path, begin=256).is_ok
    assert not shared.verify_files(path).is_ok
    assert open_segment(path).begin() == 256


def test_cosignatures_are_exported_with_the_checkpoint(scene: ExportedLog) -> None:
    line = "— witness.example/w AAAAAAAAAAAA\n".encode()
    scene.sealed.seals.checkpoints.add_cosignatures(scene.log, SIZE, line)

    scene.export()

    assert open_segment(scene.folder).note.endswith(line)
    assert scene.verify_files().is_ok


def test_junk_among_the_cosignatures_keeps_nothing_from_being_exported(scene: ExportedLog) -> None:
    line = "— witness.example/w AAAAAAAAAAAA\n".encode()
    kept = scene.deployment.admin.audit["audit_cosignatures"]
    for junk in (b"junk", "no bytes", f"— {scene.log} AAAAAAAAAAAA\n".encode()):
        place = {"log": scene.log, "size": SIZE, "lines": junk}
        kept.insert_one({"_id": place, "lines": junk}, bypass_document_validation=True)
    scene.sealed.seals.checkpoints.add_cosignatures(scene.log, SIZE, line)
    scene.sealed.seals.checkpoints.add_cosignatures(scene.log, SIZE + 1, line.replace(b"w A", b"v A"))

    note = scene.sealed.seals.checkpoints.note(scene.log, SIZE) or b""
    assert scene.sealed.seals.checkpoints.cosigned(scene.log, SIZE) == note + line
    assert scene.sealed.seals.checkpoints.cosigned(scene.log, SIZE + 1) is None
    scene.export()
    assert scene.verify_files().is_ok
    explained = scene.deployment.admin.audit.command(
        "explain", {"find": "audit_cosignatures", "filter": {"_id": {"$gte": {"log": "x"}, "$lt": {"log": "y"}}}}
    )
    assert explained["executionStats"]["totalDocsExamined"] == 0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"begin": 100}, InvalidPayload, "--from: expected a multiple of 256 below 600"),
        ({"begin": -256}, InvalidPayload, "--from: "),
        ({"begin": 768}, InvalidPayload, "--from: expected a multiple of 256 below 600"),
        ({"log": "compliance/other/2026"}, UnknownName, "nothing is signed of a log of this name; known: compliance/"),
    ],
)
def test_a_wrong_export_is_refused(
    shared: ExportedLog, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        shared.export(path=tmp_path / "log", **options)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(shared: ExportedLog, tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match="exists already"):
        shared.export(path=tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("index", "update", "says"),
    [
        (300, {"$set": {"outcome": "denied"}}, "MODIFIED"),
        (SIZE - 1, {"$set": {"created_at": 1.5}}, "MODIFIED"),
        (0, None, "MISSING"),
    ],
)
def test_an_entry_that_is_not_as_it_was_sealed_is_named_and_nothing_is_exported(
    scene: ExportedLog, index: int, update: dict[str, Any] | None, says: str
) -> None:
    query = {"_id": scene.ids[index]}
    if update is None:
        scene.entries.delete_one(query)
    else:
        scene.entries.update_one(query, update, bypass_document_validation=True)

    with pytest.raises(IntegrityError, match=rf"{says} entry {scene.ids[index]} \({scene.log} {index}\)"):
        scene.export()

    assert not scene.folder.exists()


def test_a_checkpoint_of_another_key_is_not_exported(scene: ExportedLog) -> None:
    note = scene.sealed.seals.checkpoints.note(scene.log) or b""
    scene.deployment.admin.audit["audit_checkpoints"].update_one(
        {"_id": {"log": scene.log, "size": SIZE}}, {"$set": {"note": note[:-10] + b"AAAAAAAA=\n"}}
    )

    with pytest.raises(InvalidProof):
        scene.export()

    assert not scene.folder.exists()


def test_an_entry_is_proven_from_the_folder(shared: ExportedLog, tmp_path: Path) -> None:
    path = tmp_path / "log"
    shared.export(path=path, begin=256)
    segment, policy = open_segment(path), shared.deployment.addresses.trust().policy(shared.log)

    for index in (256, 511, SIZE - 1):
        place, leaf = segment.find(shared.ids[index])
        receipt = make_receipt(leaf, index=place, node=segment.nodes(), checkpoint=segment.note)
        assert (place, verify_receipt(receipt, policy=policy).index) == (index, index)
    with pytest.raises(UnknownName, match="no entry with this id in the folder"):
        segment.find(shared.ids[0])


def test_a_damaged_folder_is_named_when_it_is_read(shared: ExportedLog, tmp_path: Path) -> None:
    path = tmp_path / "log"
    shared.export(path=path)
    (path / "tile/entries/001").unlink()

    with pytest.raises(MalformedProof, match="tile/entries/001 is missing"):
        open_segment(path).find(shared.ids[-1])
    (path / "checkpoint").unlink()
    with pytest.raises(MalformedProof, match="checkpoint"):
        open_segment(path)
    with pytest.raises(InvalidPayload, match="there is no folder none"):
        open_segment(tmp_path / "none")


def test_the_exported_checkpoint_is_the_last_one(shared: ExportedLog, tmp_path: Path) -> None:
    shared.export(path=tmp_path / "log")

    assert parse_checkpoint(parse_note((tmp_path / "log" / "checkpoint").read_bytes())[0]).size == SIZE
