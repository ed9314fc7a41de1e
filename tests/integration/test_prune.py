"""Old entries leave the database for a folder; the log still verifies, and nothing else may be missing."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from exported import BELOW, SIZE, ExportedLog, an_exported_log
from faults import Died, mortal
from sealed import an_entry, in_parallel
from signing import signed
from tampering import MARK, following, kinds, wait_for_mark

from compliance.audit.entry import Entry
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import stored_bytes
from compliance.audit.merkle import leaf_hash, prove_inclusion, root_of, verify_inclusion
from compliance.audit.prune import Pruning
from compliance.audit.pruned import PRUNED
from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError, IntegrityError, InvalidPayload, UnknownName
from compliance.login import find_login
from compliance.mongo import Databases
from compliance.roles import Role
from worker.embedded import Stack
from worker.oplog import OplogWatch
from worker.tamper import TamperWatch

STEPS = BELOW // 256


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[ExportedLog]:
    """A log of 600 entries, exported."""
    with an_exported_log(stack, tmp_path) as found:
        found.export()
        yield found


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportedLog]:
    """The same, for refusals: nothing may change."""
    with an_exported_log(stack, tmp_path_factory.mktemp("exported")) as found:
        found.export()
        yield found


def test_pruned_entries_are_gone_and_the_log_is_as_it_was_signed(scene: ExportedLog) -> None:
    kept = scene.sealed.verify().checkpoints

    assert scene.prune() == BELOW

    assert scene.left() == scene.ids[BELOW:]
    assert scene.boundary == BELOW
    assert scene.sealed.findings(against=kept) == []
    assert scene.sealed.findings(since=kept[0]) == []
    scene.seal(SIZE + STEPS)
    assert scene.sealed.findings(against=kept) == []
    assert scene.sealed.verify().entries == SIZE - BELOW + STEPS
    assert scene.verify_files().is_ok


def test_what_was_pruned_is_recorded_step_by_step(scene: ExportedLog) -> None:
    scene.prune()

    found = sorted((entry["details"] for entry in scene.pruned()), key=lambda details: details["begin"])
    assert [(one["begin"], one["below"], one["entries"]) for one in found] == [(0, 256, 256), (256, 512, 256)]
    leaves = scene.sealed.seals.leaves(scene.log, 0, BELOW)
    assert [one["root"] for one in found] == [root_of(leaves[:256]).hex(), root_of(leaves).hex()]
    assert {entry["entity_id"] for entry in scene.pruned()} == {scene.log}


def test_proofs_of_kept_and_of_pruned_entries_stay_what_they_were(scene: ExportedLog) -> None:
    tree = scene.plan().tree
    leaves = {index: leaf_hash(stored_bytes(scene.entries.find_one({"_id": scene.ids[index]}))) for index in (0, 599)}
    before = {index: prove(scene, index) for index in leaves}

    scene.prune()

    assert {index: prove(scene, index) for index in leaves} == before
    for index, leaf in leaves.items():
        verify_inclusion(before[index], leaf=leaf, index=index, size=SIZE, root=tree.root)


def prove(scene: ExportedLog, index: int) -> list[bytes]:
    return prove_inclusion(index, size=SIZE, node=scene.sealed.seals.nodes(scene.log, SIZE))


def test_the_next_export_begins_at_the_boundary(scene: ExportedLog) -> None:
    scene.prune()
    scene.seal(SIZE + STEPS)
    path = scene.home / "next"

    assert scene.export(path=path).begin == BELOW

    assert scene.verify_files(path, begin=BELOW).is_ok
    with pytest.raises(InvalidPayload, match="--from: entries below 512 were pruned"):
        scene.export(path=scene.home / "all", begin=256)


def test_a_later_pruning_takes_a_folder_that_begins_at_the_boundary_and_keeps_what_was_said(
    scene: ExportedLog,
) -> None:
    scene.prune()
    scene.seal(SIZE + STEPS)
    scene.write(500 - STEPS)
    path = scene.home / "next"
    scene.export(path=path)

    plan = scene.plan(path=path, below=1024)
    removed = plan.run(scene.deployment.services().clock)

    assert (plan.begin, plan.entries, removed) == (BELOW, 512 - STEPS, 512 - STEPS)
    assert [entry["details"]["below"] for entry in scene.pruned()] == [256, 512, 1024]
    assert scene.sealed.findings() == []


def test_an_entry_that_is_deleted_above_the_boundary_is_missing(scene: ExportedLog) -> None:
    scene.prune()
    scene.entries.delete_one({"_id": scene.ids[BELOW]})

    assert scene.sealed.findings() == [("MISSING", f"entry {scene.ids[BELOW]} ({scene.log} {BELOW})")]


def test_entries_that_are_deleted_without_a_record_are_missing(scene: ExportedLog) -> None:
    scene.prune(below=256)
    scene.entries.delete_many({"_id": {"$in": scene.ids[256:260]}})

    assert {kind for kind, _ in scene.sealed.findings()} == {"MISSING"}
    assert len(scene.sealed.findings()) == 4


def test_a_forged_record_excuses_nothing(scene: ExportedLog) -> None:
    stranger = Writer(
        origin=scene.deployment.addresses.trust().origin, key=SigningKey.from_seed("writer", bytes(32)), process="x"
    )
    entry = an_entry(
        scene.deployment,
        entity_type="log",
        entity_id=scene.log,
        action=PRUNED,
        details={"begin": 0, "below": BELOW, "entries": BELOW, "root": ""},
    )
    scene.entries.insert_many(signed(entry, writer=stranger))
    scene.entries.delete_one({"_id": scene.ids[3]})

    assert sorted(kind for kind, _ in scene.sealed.findings()) == ["FORGED", "MISSING"]


def claim(scene: ExportedLog, *, ago: timedelta = timedelta(), event: str | None = None, **details: Any) -> None:
    """Write an entry of a pruning with the key of a writer, as none would."""
    entry = an_entry(
        scene.deployment,
        event=event or str(ObjectId()),
        entity_type="log",
        entity_id=scene.log,
        action=PRUNED,
        created_at=scene.deployment.admin.server_time() - ago,
        details={"begin": 0, "below": BELOW, "entries": BELOW, "root": root_below(scene, BELOW)} | details,
    )
    scene.entries.insert_many(signed(entry, writer=scene.deployment.addresses.writer("x")))


def root_below(scene: ExportedLog, size: int) -> str:
    return root_of(scene.sealed.seals.leaves(scene.log, 0, size)).hex()


def test_a_record_counts_from_when_it_is_written(scene: ExportedLog) -> None:
    claim(scene)
    assert scene.boundary == BELOW

    scene.seal(SIZE + 1)
    assert scene.boundary == BELOW


@pytest.mark.parametrize(
    "details",
    [
        {"root": ""},
        {"root": "no root"},
        {"root": "00" * 32},
        {"below": BELOW - 1},
        {"below": SIZE + 1},
        {"below": 0},
        {"below": "x"},
        {"begin": 0, "below": None},
    ],
)
def test_a_record_of_another_tree_excuses_nothing(scene: ExportedLog, details: dict[str, Any]) -> None:
    claim(scene, **details)
    scene.seal(SIZE + 1)
    scene.entries.delete_one({"_id": scene.ids[3]})

    assert scene.boundary == 0
    assert scene.sealed.findings() == [("MISSING", f"entry {scene.ids[3]} ({scene.log} 3)")]


def test_the_highest_record_that_counts_is_the_boundary(scene: ExportedLog) -> None:
    claim(scene, below=256, root=root_below(scene, 256))
    claim(scene, below=SIZE, root="00" * 32)

    assert scene.boundary == 256


def test_a_record_that_should_be_sealed_and_is_not_excuses_nothing(scene: ExportedLog) -> None:
    claim(scene, ago=timedelta(minutes=9))
    assert scene.boundary == BELOW
    scene.entries.delete_one({"action": PRUNED})

    claim(scene, ago=timedelta(minutes=20))

    assert scene.boundary == 0


def test_a_record_that_was_sealed_with_other_bytes_excuses_nothing(scene: ExportedLog) -> None:
    """Somebody with the key of a writer signed another entry with the same id."""
    claim(scene, ago=timedelta(minutes=20), event="one", below=256, root=root_below(scene, 256))
    scene.seal(SIZE + 1)
    assert scene.boundary == 256
    scene.entries.delete_one({"action": PRUNED})

    claim(scene, ago=timedelta(minutes=20), event="one")

    assert scene.boundary == 0


def test_neither_tiles_nor_checkpoints_of_a_stranger_move_the_boundary(scene: ExportedLog) -> None:
    scene.prune()
    audit = scene.deployment.admin.audit
    audit["audit_tiles"].update_many({}, {"$set": {"hashes": bytes(8192)}})
    audit["audit_checkpoints"].insert_one({"_id": {"log": scene.log, "size": SIZE + 7}, "note": b"junk"})

    assert scene.boundary == BELOW
    assert {kind for kind, _ in scene.sealed.findings()} == {"MODIFIED", "FORGED"}
    audit["audit_batches"].update_one({}, {"$set": {"leaves": bytes(32)}})
    assert scene.boundary == 0


def test_an_altered_record_excuses_nothing_more(scene: ExportedLog) -> None:
    scene.prune(below=256)
    scene.entries.update_one({"action": PRUNED}, {"$set": {"details.below": 512}})

    assert ("MISSING", f"entry {scene.ids[0]} ({scene.log} 0)") in scene.sealed.findings()
    assert scene.boundary == 0


@pytest.mark.parametrize("death", ["before", "behind"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_a_pruning_that_dies_goes_on_when_it_is_run_again(scene: ExportedLog, at: int, death: str) -> None:
    committed = death == "behind"
    archiver = scene.deployment.services(Role.ARCHIVER).databases
    with pytest.raises(Died):
        scene.prune(mortal(archiver, at=at, committed=committed))

    done = 256 * (at if committed else at - 1)
    assert (scene.boundary, scene.left()) == (done, scene.ids[done:])
    assert scene.sealed.findings() == []

    assert scene.prune() == BELOW - done

    assert scene.left() == scene.ids[BELOW:]
    assert sum(entry["details"]["entries"] for entry in scene.pruned()) == BELOW
    assert scene.sealed.findings() == []
    assert scene.prune() == 0


def test_two_prunings_at_once_remove_each_entry_once(scene: ExportedLog) -> None:
    removed: list[int] = []
    plans = [scene.plan(), scene.plan(below=256), scene.plan()]

    def run(plan: Pruning, step: int) -> None:
        removed.append(plan.run(scene.deployment.services().clock, step=step))

    in_parallel(lambda: run(plans[0], 256), lambda: run(plans[1], 256), lambda: run(plans[2], 512))

    assert sum(removed) == BELOW
    assert scene.left() == scene.ids[BELOW:]
    assert sum(entry["details"]["entries"] for entry in scene.pruned()) == BELOW
    assert scene.sealed.findings() == []


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"below": 300}, InvalidPayload, "--below: expected a multiple of 256, at most 512: 600 entries are signed"),
        ({"below": 768}, InvalidPayload, "--below: expected a multiple of 256, at most 512"),
        ({"below": 0}, InvalidPayload, "--below: expected a multiple of 256"),
        ({"below": -256}, InvalidPayload, "--below: expected a multiple of 256"),
        ({"log": "compliance/other/2026"}, UnknownName, "nothing is signed of a log of this name"),
        ({"path": Path("/nonexistent/folder")}, InvalidPayload, "there is no folder folder"),
    ],
)
def test_a_wrong_pruning_is_refused(
    shared: ExportedLog, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        shared.plan(**options)

    assert shared.left() == shared.ids


def test_entries_that_are_too_young_stay(shared: ExportedLog) -> None:
    newest = shared.entries.find_one({"_id": shared.ids[BELOW - 1]})["created_at"]

    with pytest.raises(InvalidPayload, match=r"entry \d+ is of .* \(COMPLIANCE_AUDIT_RETENTION_DAYS\); at most"):
        shared.plan(older_than=newest)

    assert shared.plan(older_than=newest + timedelta(milliseconds=1)).entries == BELOW


def test_a_folder_that_begins_too_late_or_ends_too_early_is_refused(shared: ExportedLog, tmp_path: Path) -> None:
    shared.export(path=tmp_path / "late", begin=256)

    with pytest.raises(InvalidPayload, match="does not hold all entries from 0 to 511"):
        shared.plan(path=tmp_path / "late")


def test_an_export_from_before_is_enough_for_what_it_holds(scene: ExportedLog) -> None:
    scene.write(200)

    assert scene.prune() == BELOW
    with pytest.raises(InvalidPayload, match="does not hold all entries from 512 to 767"):
        scene.plan(below=768)


@pytest.mark.parametrize("name", ["tile/entries/001", "tile/0/000", "checkpoint"])
def test_a_damaged_folder_is_refused(scene: ExportedLog, name: str) -> None:
    path = scene.folder / name
    path.write_bytes(path.read_bytes()[:-3] + b"AA\n")

    with pytest.raises(IntegrityError, match=r"does not verify: |signature"):
        scene.prune()

    assert scene.left() == scene.ids


def test_a_folder_of_another_log_is_refused(shared: ExportedLog, stack: Stack, tmp_path: Path) -> None:
    with an_exported_log(stack, tmp_path) as other:
        other.export()

        with pytest.raises(InvalidPayload, match=f"the folder is of another log than {shared.log}"):
            shared.plan(path=other.folder)


def test_a_folder_of_another_tree_of_the_same_log_is_refused(scene: ExportedLog) -> None:
    """The log was written anew with the keys of the log: the folder tells."""
    audit = scene.deployment.admin.audit
    for name in ("audit_log", "audit_batches", "audit_checkpoints", "audit_tiles"):
        audit[name].delete_many({})
    scene.sealed.guard.unlink()
    writer = scene.deployment.addresses.writer("test")
    scene.entries.insert_many(signed(*(an_entry(scene.deployment) for _ in range(SIZE)), writer=writer))
    scene.seal(SIZE)

    with pytest.raises(IntegrityError, match="the folder is of another tree than the database"):
        scene.prune()

    audit["audit_checkpoints"].delete_many({})
    assert scene.entries.count_documents({}) == SIZE


def test_a_database_that_was_rolled_back_is_refused(scene: ExportedLog) -> None:
    scene.write(100)
    scene.export(path=scene.home / "longer")
    scene.deployment.admin.audit["audit_checkpoints"].delete_one({"_id.size": SIZE + 100})

    with pytest.raises(IntegrityError, match="700 signed entries, and the database 600"):
        scene.plan(path=scene.home / "longer")


@pytest.mark.parametrize("index", [0, 255, 256, BELOW - 1])
@pytest.mark.parametrize("attack", ["modify", "delete"])
def test_what_was_done_to_an_entry_is_not_pruned_away(scene: ExportedLog, index: int, attack: str) -> None:
    query = {"_id": scene.ids[index]}
    if attack == "modify":
        scene.entries.update_one(query, {"$set": {"outcome": "denied"}})
    else:
        scene.entries.delete_one(query)

    with pytest.raises(IntegrityError, match=rf"entry {scene.ids[index]} \({scene.log} {index}\) is not in the data"):
        scene.prune()

    assert scene.boundary == index - index % 256
    fault = "MODIFIED" if attack == "modify" else "MISSING"
    assert scene.sealed.findings() == [(fault, f"entry {scene.ids[index]} ({scene.log} {index})")]


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
def test_no_process_can_prune(shared: ExportedLog, role: Role) -> None:
    databases: Databases = shared.deployment.services(role).databases

    with pytest.raises(ConfigurationError, match="lacks a privilege"):
        shared.prune(databases)

    assert shared.left() == shared.ids
    assert find_login(databases).altering_rights == frozenset()


@pytest.mark.timeout(90)
def test_a_pruning_is_told_of_and_a_plain_delete_is_another_incident(scene: ExportedLog) -> None:
    deployment, audit = scene.deployment, scene.deployment.admin.audit
    with following(deployment, TamperWatch), following(deployment, OplogWatch):
        assert scene.prune() == BELOW
        mark(scene)
        assert set(kinds(deployment)) == {"PRUNED"}
        assert scene.deployment.admin.audit["audit_incidents"].find_one({"what": {"$regex": "was that you"}})

        scene.entries.delete_one({"_id": scene.ids[-1]})
        audit.client.admin.command(
            {"applyOps": [{"op": "d", "ns": f"{audit.name}.audit_log", "o": {"_id": scene.ids[-2]}}]}
        )
        mark(scene)

    assert [kind for kind in kinds(deployment) if kind != "PRUNED"] == ["APPLY-OPS", "DELETED"]


def mark(scene: ExportedLog) -> None:
    """Return when both watches have read up to now."""
    admin = scene.deployment.admin
    for database in (admin.audit, admin.app):
        name = f"{MARK}{ObjectId()}"
        database.create_collection(name)
        if database.name == admin.app.name:
            operation = {"op": "i", "ns": f"{database.name}.{name}", "o": {"_id": 1}}
            admin.client.admin.command({"applyOps": [operation]})
        wait_for_mark(scene.deployment, name)


def test_a_record_of_a_stranger_does_not_stop_a_pruning_for_ever(scene: ExportedLog) -> None:
    stranger = Writer(
        origin=scene.deployment.addresses.trust().origin, key=SigningKey.from_seed("writer", bytes(32)), process="x"
    )
    entry = Entry(
        event=f"{scene.log}#pruned 0",
        entity_type="log",
        entity_id=scene.log,
        action=PRUNED,
        created_at=scene.later,
        performed_by="test",
        details={"below": BELOW},
    )
    scene.entries.insert_many(signed(entry, writer=stranger))

    with pytest.raises(IntegrityError, match="was pruned from 0 on, and is not ours"):
        scene.prune()

    assert scene.left() == scene.ids
