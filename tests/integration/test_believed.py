"""What the database says about itself is not believed: its tiles, its times, and which log is the present one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attacked import SIZE as SMALL
from attacked import Scene, arrange
from exported import SIZE, ExportedLog, an_exported_log
from sealed import an_entry
from signing import signed
from waiting import wait_until

from compliance.audit.checkpoint import parse_checkpoint
from compliance.audit.head import find_note, present_log
from compliance.audit.note import parse_note
from compliance.audit.seals import Seals
from compliance.audit.tiles import WIDTH, Tile
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import Findings
from compliance.audit.verification.tree import StoredTiles, Tree
from compliance.errors import UnknownName
from compliance.roles import TILES
from worker.embedded import Stack

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def long(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ExportedLog, bytes]]:
    """A log with full tiles that was sealed twice, and the checkpoint between."""
    with an_exported_log(stack, tmp_path_factory.mktemp("long")) as found:
        note = found.sealed.seals.checkpoints.note(found.log)
        found.write(200)
        yield found, note or b""


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as cleanup:
        yield arrange(stack, cleanup, tmp_path)


@pytest.fixture
def tiles(long: tuple[ExportedLog, bytes]) -> Iterator[Any]:
    """The collection of tiles, which is afterwards what it was before."""
    found = long[0].deployment.admin.audit[TILES]
    before = list(found.find())
    yield found
    found.delete_many({})
    found.insert_many(before)


def at(long: tuple[ExportedLog, bytes], level: int, index: int) -> dict[str, Any]:
    return {"log": long[0].log, "level": level, "index": index}


BROKEN: dict[str, tuple[Callable[[Any, dict[str, Any]], Any], str]] = {
    "zeroed": (lambda tiles, id_: tiles.update_one({"_id": id_}, {"$set": {"hashes": bytes(8192)}}), "MODIFIED"),
    "shorter": (lambda tiles, id_: tiles.update_one({"_id": id_}, {"$set": {"hashes": bytes(32)}}), "MODIFIED"),
    "removed": (lambda tiles, id_: tiles.delete_one({"_id": id_}), "MISSING"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_tile_that_is_not_that_of_the_leaves_is_named(
    long: tuple[ExportedLog, bytes], tiles: Any, name: str, index: int
) -> None:
    log, note = long
    attack, kind = BROKEN[name]
    assert log.sealed.findings() == []

    attack(tiles, at(long, 0, index))

    named = [(kind, f"tile tile/0/{index:03} of {log.log}")]
    assert log.sealed.findings() == named
    assert log.sealed.findings(since=note) == named
    assert log.sealed.findings(since=note, against=[note]) == named
    newest = log.sealed.seals.checkpoints.note(log.log)
    is_computed = kind == "MISSING" and index < SIZE // WIDTH
    assert log.sealed.findings(since=newest) == ([] if is_computed else named)


def test_no_tile_makes_a_checkpoint_from_elsewhere_another_one(long: tuple[ExportedLog, bytes], tiles: Any) -> None:
    log, note = long
    newest = log.sealed.seals.checkpoints.note(log.log) or b""
    tiles.update_many({}, {"$set": {"hashes": bytes(8192)}})

    assert {kind for kind, _ in log.sealed.findings(since=note, against=[note])} == {"MODIFIED"}
    assert {kind for kind, _ in log.sealed.findings(since=newest, against=[note])} == {"MODIFIED"}


@pytest.mark.parametrize(
    "id_",
    [
        {"level": 0, "index": 3},
        {"level": 1, "index": 0},
        {"level": 7, "index": 10**6},
        {"log": "audit.example/app/2031", "level": 0, "index": 0},
    ],
)
def test_a_tile_beyond_the_tree_is_forged(long: tuple[ExportedLog, bytes], tiles: Any, id_: dict[str, Any]) -> None:
    place = at(long, 0, 0) | id_
    tiles.insert_one({"_id": place, "hashes": bytes(8192)})

    path = Tile(place["level"], place["index"]).path
    assert long[0].sealed.findings() == [("FORGED", f"tile {path} of {place['log']}")]


@pytest.mark.parametrize(
    "id_", [5, {"log": "x", "level": 0, "index": "x"}, {"log": "x", "level": 0}, {"log": "x", "level": 99, "index": 0}]
)
def test_a_tile_without_a_place_is_forged(long: tuple[ExportedLog, bytes], tiles: Any, id_: Any) -> None:
    tiles.insert_one({"_id": id_, "hashes": b""}, bypass_document_validation=True)

    assert long[0].sealed.findings() == [("FORGED", "a tile with an id that is none")]


def test_tiles_of_every_level_are_compared(scene: Scene) -> None:
    leaves = [number.to_bytes(32) for number in range(WIDTH * WIDTH)]
    tree, full = Tree().extended(leaves)
    findings = Findings()
    stored = StoredTiles(seals=scene.sealed.seals, log="x", findings=findings)
    scene.audit[TILES].insert_many(
        {"_id": {"log": "x", "level": tile.level, "index": tile.index}, "hashes": hashes} for tile, hashes in full
    )
    stored.compare(full)
    stored.settle()
    assert list(findings) == []

    scene.audit[TILES].update_one({"_id": {"log": "x", "level": 1, "index": 0}}, {"$set": {"hashes": b"x"}})
    stored.compare(full)
    stored.drop()
    stored.settle()
    assert list(findings) == []
    stored.compare(full)
    stored.settle()
    assert [str(found).partition(":")[0] for found in findings] == ["MODIFIED tile tile/1/000 of x"]
    assert tree.frontier.size == WIDTH * WIDTH


def set_sealed_at(scene: Scene, number: int, moment: datetime) -> None:
    scene.audit["audit_batches"].update_one({"_id.start": scene.batch(number).start}, {"$set": {"sealed_at": moment}})


def test_a_batch_of_the_future_is_forged_and_hides_no_silence(scene: Scene) -> None:
    now = scene.sealed.deployment.admin.server_time()
    set_sealed_at(scene, 2, now + 20 * MINUTE)
    last = f"batch {scene.batch(2).start} of {scene.sealed.log}"

    assert scene.sealed.findings() == [("FORGED", last)]
    assert scene.sealed.findings(now=now + 11 * MINUTE) == []
    set_sealed_at(scene, 2, now + 180 * MINUTE)
    assert scene.sealed.findings(now=now + 180 * MINUTE) == [("STALE", scene.sealed.log)]


def test_a_batch_before_the_one_before_it_is_forged(scene: Scene) -> None:
    before = scene.batch(0).sealed_at
    set_sealed_at(scene, 1, before - 9 * MINUTE)
    assert scene.sealed.findings() == []

    set_sealed_at(scene, 1, before - 11 * MINUTE)

    named = [("FORGED", f"batch {scene.batch(1).start} of {scene.sealed.log}")]
    assert scene.sealed.findings() == named
    assert scene.sealed.findings(since=scene.kept[0]) == named
    assert scene.sealed.findings(since=scene.kept[1]) == []


def test_a_batch_without_a_time_is_none(scene: Scene) -> None:
    scene.audit["audit_batches"].update_one(
        {"_id.start": scene.batch(2).start}, {"$set": {"sealed_at": "now"}}, bypass_document_validation=True
    )

    assert ("FORGED", f"a batch of {scene.sealed.log}") in scene.sealed.findings()
    assert ("FORGED", f"a batch of {scene.sealed.log}") in scene.sealed.findings(since=scene.kept[0])


def test_a_batch_of_nothing_is_named_and_no_error(scene: Scene) -> None:
    nothing = {"_id": {"log": scene.sealed.log, "start": SMALL}, "n": 0, "ids": b"", "leaves": b"", "token": "x"}
    frontier = b"".join(scene.batch(2).frontier.hashes)
    scene.audit["audit_batches"].insert_one(
        nothing | {"frontier": frontier, "sealed_at": scene.batch(2).sealed_at + timedelta(hours=1)},
        bypass_document_validation=True,
    )

    assert scene.sealed.findings() == [("FORGED", f"batch {SMALL} of {scene.sealed.log}")]


def test_no_time_of_a_batch_keeps_its_missing_checkpoint_from_being_found(scene: Scene) -> None:
    scene.audit["audit_checkpoints"].delete_one({"_id.size": SMALL})
    later = scene.sealed.deployment.admin.server_time() + 12 * MINUTE
    for moment in (later, later + 9 * MINUTE):
        set_sealed_at(scene, 2, moment)

        assert scene.sealed.findings(now=later) == [("UNSEALED", scene.sealed.log)]
        assert scene.sealed.findings(now=later, since=scene.kept[1]) == [("UNSEALED", scene.sealed.log)]


def test_silence_is_found_since_a_checkpoint_too(scene: Scene) -> None:
    later = scene.sealed.deployment.admin.server_time() + timedelta(hours=3)

    for note in scene.kept:
        (finding,) = scene.sealed.verify(now=later, since=note).findings
        assert (finding.fault, finding.what) == ("STALE", scene.sealed.log)
        assert (
            finding.why == f"the last entry that is sealed is of {scene.entry(-1)['created_at']:%Y-%m-%d %H:%M:%S} UTC"
        )


def test_a_log_that_is_shorter_than_where_to_begin_is_cut_off(scene: Scene) -> None:
    scene.drop_tail()

    assert scene.sealed.findings(since=scene.kept[2]) == [("TRUNCATED", scene.sealed.log)]


def of_next_year(scene: Scene) -> str:
    """Write and seal an entry that is dated in the next year; return its log."""
    sealed = scene.sealed
    next_year = sealed.deployment.admin.server_time() + timedelta(days=366)
    writer = sealed.deployment.addresses.writer("x")
    scene.entries.insert_many(signed(an_entry(sealed.deployment, created_at=next_year), writer=writer))
    with sealed.running():
        wait_until(
            lambda: len(sealed.seals.logs()) == 2 and sealed.seals.checkpoints.note(last(sealed.seals)),
            timeout=30,
            what="two logs",
        )
    return last(sealed.seals)


def last(seals: Seals) -> str:
    return seals.logs()[-1]


def trust_of(scene: Scene) -> Trust:
    return scene.sealed.deployment.addresses.trust()


def note_before(scene: Scene, moment: datetime) -> bytes | None:
    return find_note(scene.sealed.seals, trust_of(scene), before=moment)


def log_of(note: bytes | None) -> str:
    return parse_checkpoint(parse_note(note or b"")[0]).origin


def test_an_entry_of_the_next_year_makes_no_present_log(scene: Scene) -> None:
    sealed, seals, present = scene.sealed, scene.sealed.seals, scene.sealed.log
    strange = of_next_year(scene)
    assert present_log(seals, trust_of(scene)) == strange  # until the next entry: it was sealed last
    sealed.append(1)
    with sealed.running():
        wait_until(lambda: present_log(seals, trust_of(scene)) == present, timeout=30, what="the present log goes on")

    later = sealed.deployment.admin.server_time() + MINUTE
    assert [log_of(note) for note in sealed.verify().checkpoints] == [strange, present]
    assert log_of(note_before(scene, later)) == present
    assert [kind for kind, _ in sealed.findings(now=later + timedelta(hours=3))] == ["BACKDATED", "STALE"]


def test_the_log_before_serves_where_the_present_one_was_not_there_yet(scene: Scene) -> None:
    first = scene.sealed.log
    before = scene.sealed.deployment.admin.server_time()
    first_sealed_at = scene.batch(0).sealed_at
    of_next_year(scene)

    assert note_before(scene, before) == scene.kept[2]
    assert note_before(scene, first_sealed_at) is None
    assert log_of(note_before(scene, before)) == first


def test_a_log_that_nobody_signed_is_not_the_present_one(scene: Scene) -> None:
    seals, present = scene.sealed.seals, scene.sealed.log
    strange = of_next_year(scene)
    scene.audit["audit_checkpoints"].delete_many({"_id.log": strange})

    assert present_log(seals, trust_of(scene)) == present
    scene.audit["audit_checkpoints"].delete_many({})
    with pytest.raises(UnknownName, match="nothing is sealed yet"):
        present_log(seals, trust_of(scene))


def test_what_was_sealed_before_and_not_signed_is_left_to_the_next_checkpoint(scene: Scene) -> None:
    scene.audit["audit_checkpoints"].delete_one({"_id.size": SMALL})
    now = scene.sealed.deployment.admin.server_time() + MINUTE

    assert note_before(scene, now) == scene.kept[1]
