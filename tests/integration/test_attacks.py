"""Somebody with the rights of the database's administrator attacks the log: verification says what was done to what.

Source of the list: the attacks of our own threat model, docs/audit.md.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from attacked import SIZE, Scene, arrange, at, forge, put_back
from bson import DatetimeMS, Int64, MinKey, ObjectId
from bson.raw_bson import RawBSONDocument
from doubled import doubled
from sealed import an_entry
from signing import signed
from waiting import wait_until

from compliance.audit.checkpoint import Checkpoint, sign_checkpoint
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import Frontier
from compliance.audit.trust import yearly
from compliance.audit.verification import Fault, Parallel
from compliance.audit.writer import Writer
from compliance.errors import IntegrityError
from compliance.roles import Role
from worker.embedded import Stack

NEIGHBOURS = [f"{number:032x}" for number in range(3)]


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as cleanup:
        yield arrange(stack, cleanup, tmp_path)


Attack = Callable[[Scene], Any]
Finding = tuple[Fault, str]


def modified(scene: Scene, *indexes: int) -> list[Finding]:
    return [(Fault.MODIFIED, at(scene, index)) for index in indexes]


def missing(scene: Scene, *indexes: int) -> list[Finding]:
    return [(Fault.MISSING, at(scene, index)) for index in indexes]


def swap_bodies(scene: Scene) -> None:
    one, two = scene.entry(3), scene.entry(4)
    scene.entries.replace_one({"_id": one["_id"]}, two | {"_id": one["_id"]})
    scene.entries.replace_one({"_id": two["_id"]}, one | {"_id": two["_id"]})


def reorder(scene: Scene) -> None:
    batch = scene.batch(1)
    ids, leaves = tuple(reversed(batch.ids)), tuple(reversed(batch.leaves))
    scene.write_batch(replace(batch, ids=ids, leaves=leaves))


def reorder_with_its_frontier(scene: Scene) -> None:
    batch = scene.batch(2)
    ids, leaves = tuple(reversed(batch.ids)), tuple(reversed(batch.leaves))
    scene.write_batch(replace(batch, ids=ids, leaves=leaves, frontier=scene.batch(1).frontier.extended(leaves)))


def seal_forged(scene: Scene) -> None:
    """Forge entry, batch and checkpoint, without the keys."""
    forged = forge(scene)
    scene.entries.insert_one(forged)
    last = scene.batch(2)
    leaf = entry_hash(forged)
    scene.write_batch(replace(last, ids=(forged["_id"],), leaves=(leaf,), frontier=last.frontier.extended([leaf])))
    root = last.frontier.extended([leaf]).root
    key = yearly(SigningKey.from_seed("log", bytes(32)), scene.sealed.log)
    note = sign_checkpoint(Checkpoint(origin=scene.sealed.log, size=SIZE + 1, root=root), [key])
    scene.audit["audit_checkpoints"].insert_one({"_id": {"log": scene.sealed.log, "size": SIZE + 1}, "note": note})


def replay(scene: Scene) -> None:
    """A genuine old entry, once more under another id."""
    scene.entries.insert_one(scene.entry(2) | {"_id": "ab" * 16})


def unsealed_of(scene: Scene) -> str:
    (found,) = scene.entries.find({"_id": {"$nin": scene.ids}}, {"_id": 1})
    return f"entry {found['_id']}"


ATTACKS: dict[str, tuple[Attack, Callable[[Scene], list[Finding]]]] = {
    "A1 modify": (
        lambda scene: scene.entries.update_one({"_id": scene.ids[5]}, {"$set": {"outcome": "denied"}}),
        lambda scene: modified(scene, 5),
    ),
    "A1b modify without a change event": (
        lambda scene: scene.apply_ops(
            op="u", o2={"_id": scene.ids[5]}, o={"$v": 2, "diff": {"u": {"outcome": "denied"}}}
        ),
        lambda scene: modified(scene, 5),
    ),
    "A1c modify and sign with another key": (
        lambda scene: scene.entries.update_one({"_id": scene.ids[5]}, {"$set": {"sig": "A" * 86 + "=="}}),
        lambda scene: modified(scene, 5),
    ),
    "A1d add a field": (
        lambda scene: scene.entries.update_one(
            {"_id": scene.ids[5]}, {"$set": {"note": 1}}, bypass_document_validation=True
        ),
        lambda scene: modified(scene, 5),
    ),
    "A1e another width of the same number": (
        lambda scene: scene.entries.update_one({"_id": scene.ids[5]}, {"$set": {"writer.seq": Int64(5)}}),
        lambda _: [],
    ),
    "A1f a field twice": (
        lambda scene: put_back(scene, 5, doubled(scene.entry(5), "outcome", "denied")),
        lambda scene: modified(scene, 5),
    ),
    "A1g a field twice within a field": (
        lambda scene: put_back(
            scene, 5, scene.entry(5) | {"details": doubled(scene.entry(5)["details"], "type", "MARKETING")}
        ),
        lambda scene: modified(scene, 5),
    ),
    "A1h text that is no text": (
        lambda scene: put_back(
            scene, 5, RawBSONDocument(bson.encode(scene.entry(5)).replace(b"success", b"\xff\xfe\xfdcess"))
        ),
        lambda scene: modified(scene, 5),
    ),
    "A1i a time of no calendar": (
        lambda scene: scene.entries.update_one(
            {"_id": scene.ids[5]}, {"$set": {"created_at": DatetimeMS(2**60)}}, bypass_document_validation=True
        ),
        lambda scene: modified(scene, 5),
    ),
    "A2 delete": (lambda scene: scene.entries.delete_one({"_id": scene.ids[7]}), lambda scene: missing(scene, 7)),
    "A2b delete several of one stream": (
        lambda scene: scene.entries.delete_many({"_id": {"$in": scene.ids[4:7]}}),
        lambda scene: missing(scene, 4, 5, 6),
    ),
    "A3 forged entry": (
        lambda scene: scene.entries.insert_one(forge(scene)),
        lambda scene: [(Fault.FORGED, unsealed_of(scene))],
    ),
    "A3b forged entry without a change event": (
        lambda scene: scene.apply_ops(op="i", o=forge(scene)),
        lambda scene: [(Fault.FORGED, unsealed_of(scene))],
    ),
    "A3c an entry under an id that is none": (
        lambda scene: scene.entries.insert_one(forge(scene, _id=7), bypass_document_validation=True),
        lambda _: [(Fault.FORGED, "entry with an id that is none")],
    ),
    **{
        f"A3c an entry under {id_!r}": (
            lambda scene, id_=id_: scene.entries.insert_one(forge(scene, _id=id_), bypass_document_validation=True),
            lambda _: [(Fault.FORGED, "entry with an id that is none")],
        )
        for id_ in ({"a": 1}, DatetimeMS(2**60), "no id", MinKey())
    },
    "A3c an entry under text that is no text": (
        lambda scene: scene.entries.insert_one(
            RawBSONDocument(bson.encode(forge(scene, _id="xyz")).replace(b"xyz", b"x\xffz")),
            bypass_document_validation=True,
        ),
        lambda _: [(Fault.MODIFIED, "entry with an id that is none")],
    ),
    "A3f entries with neighbouring ids": (
        lambda scene: scene.entries.insert_many(forge(scene, _id=id_) for id_ in NEIGHBOURS),
        lambda _: [(Fault.FORGED, f"entry {id_}") for id_ in NEIGHBOURS],
    ),
    "A3e an entry with a field twice that nobody sealed": (
        lambda scene: scene.entries.insert_one(doubled(forge(scene), "outcome", "denied")),
        lambda scene: [(Fault.MODIFIED, unsealed_of(scene))],
    ),
    "A3d a genuine entry that nobody sealed": (
        lambda scene: scene.entries.insert_one(forge(scene, scene.sealed.deployment.addresses.writer("x").key)),
        lambda scene: [(Fault.UNSEALED, unsealed_of(scene))],
    ),
    "A4 forged entry, batch and checkpoint": (
        seal_forged,
        lambda scene: [
            (Fault.FORGED, f"checkpoint {SIZE + 1} of {scene.sealed.log}"),
            (Fault.FORGED, unsealed_of(scene)),
            (Fault.BACKDATED, f"{unsealed_of(scene)} ({scene.sealed.log} {SIZE})"),
            (Fault.UNSEALED, scene.sealed.log),
        ],
    ),
    "A5 reorder the leaves of a batch": (reorder, lambda scene: [(Fault.REORDERED, scene.sealed.log)]),
    "A5a reorder with the frontier": (
        reorder_with_its_frontier,
        lambda scene: [(Fault.REORDERED, scene.sealed.log)],
    ),
    "A5b swap two bodies": (swap_bodies, lambda scene: modified(scene, 3, 4)),
    "A6d delete the last entries": (
        lambda scene: scene.entries.delete_many({"_id": {"$in": scene.ids[-2:]}}),
        lambda scene: missing(scene, SIZE - 2, SIZE - 1),
    ),
    "A9 replay under another id": (replay, lambda scene: [(Fault.MODIFIED, unsealed_of(scene))]),
    "A10 drop the collection": (
        lambda scene: scene.entries.drop(),
        lambda scene: [(Fault.SCHEMA_DRIFT, "audit_log"), *missing(scene, *range(SIZE))],
    ),
    "A13 poison a frontier": (
        lambda scene: scene.write_batch(replace(scene.batch(1), frontier=Frontier(8, (bytes(32),)))),
        lambda scene: [(Fault.FORGED, f"batch 4 of {scene.sealed.log}")],
    ),
    "A13b remove a batch": (
        lambda scene: scene.audit["audit_batches"].delete_one({"_id.start": 4}),
        lambda scene: [
            (Fault.FORGED, scene.sealed.log),
            *((Fault.UNSEALED, f"entry {id_}") for id_ in scene.ids[4:8]),
        ],
    ),
    "A13c remove the last checkpoint": (
        lambda scene: scene.audit["audit_checkpoints"].delete_one({"_id.size": SIZE}),
        lambda scene: [(Fault.UNSEALED, scene.sealed.log)],
    ),
    "A13d remove the last batch": (
        lambda scene: scene.audit["audit_batches"].delete_one({"_id.start": 8}),
        lambda scene: [
            (Fault.TRUNCATED, scene.sealed.log),
            *((Fault.UNSEALED, f"entry {id_}") for id_ in scene.ids[8:]),
        ],
    ),
    "A17 a TTL index": (
        lambda scene: scene.entries.create_index("created_at", expireAfterSeconds=10**9),
        lambda _: [(Fault.SCHEMA_DRIFT, "audit_log")],
    ),
    "A17b validator off": (
        lambda scene: scene.audit.command("collMod", "audit_log", validator={}),
        lambda _: [(Fault.SCHEMA_DRIFT, "audit_log")],
    ),
    "A17c validation warns": (
        lambda scene: scene.audit.command("collMod", "audit_batches", validationAction="warn"),
        lambda _: [(Fault.SCHEMA_DRIFT, "audit_batches")],
    ),
    "A17d an index is gone": (
        lambda scene: scene.entries.drop_index("ix_audit_entity"),
        lambda _: [(Fault.SCHEMA_DRIFT, "audit_log")],
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_named(scene: Scene, name: str) -> None:
    attack, expected = ATTACKS[name]
    assert scene.sealed.findings() == []

    attack(scene)

    wanted = [(fault.value, what) for fault, what in expected(scene)]
    later = scene.sealed.deployment.admin.server_time() + timedelta(minutes=2)
    found = [(kind, what) for kind, what in scene.sealed.findings(now=later) if kind != Fault.STREAM_GAP]
    streams = [kind for kind, _ in scene.sealed.findings(now=later) if kind == Fault.STREAM_GAP]
    assert sorted(set(found)) == sorted(set(wanted))
    assert len(streams) == {"A13b remove a batch": 1}.get(name, 0)


def test_a_log_that_was_cut_off_is_found_with_a_checkpoint_from_elsewhere_only(scene: Scene) -> None:
    scene.drop_tail()

    assert scene.sealed.findings() == []
    assert scene.sealed.findings(against=[scene.kept[1]]) == []
    assert scene.sealed.findings(against=[scene.kept[2]]) == [("TRUNCATED", scene.sealed.log)]
    assert scene.sealed.findings(against=scene.kept, now=scene.sealed.deployment.admin.server_time()) == [
        ("TRUNCATED", scene.sealed.log)
    ]


def test_silence_is_found(scene: Scene) -> None:
    later = scene.sealed.deployment.admin.server_time() + timedelta(hours=3)

    assert scene.sealed.findings(now=later) == [("STALE", scene.sealed.log)]
    assert scene.sealed.findings(now=later, stale_after=timedelta(hours=4)) == []


def test_a_log_without_its_log_is_cut_off(scene: Scene) -> None:
    log = scene.sealed.log
    for name in ("audit_log", "audit_batches", "audit_checkpoints"):
        scene.audit[name].delete_many({})

    assert scene.sealed.findings(against=scene.kept[:1]) == [("TRUNCATED", log)]


def test_a_log_that_was_written_anew_with_stolen_keys_is_another_one(scene: Scene) -> None:
    addresses = scene.sealed.deployment.addresses
    writer = Writer(origin=addresses.trust().origin, key=addresses.writer("x").key, process="x")
    documents = signed(*(an_entry(scene.sealed.deployment) for _ in range(SIZE)), writer=writer)
    scene.rewrite(documents, [yearly(addresses.log_key(), scene.sealed.log)])

    assert scene.sealed.findings() == []
    assert scene.sealed.findings(against=[scene.kept[0]]) == [("FORK", scene.sealed.log)]
    assert ("FORK", scene.sealed.log) in scene.sealed.findings(since=scene.kept[1])


@pytest.mark.parametrize("number", range(3))
def test_a_checkpoint_of_every_size_agrees_with_the_log(scene: Scene, number: int) -> None:
    assert scene.sealed.findings(against=scene.kept, since=scene.kept[number]) == []
    assert scene.sealed.verify(since=scene.kept[number]).entries == SIZE - (number + 1) * SIZE // 3


def test_an_entry_that_is_removed_before_its_seal_leaves_a_gap(scene: Scene) -> None:
    """The oplog was lost as well, so that nobody saw it."""
    sealed = scene.sealed
    ids = sealed.append(3)
    scene.entries.delete_one({"_id": ids[1]})
    for batch in scene.audit["audit_batches"].find():  # its time is that of 1970
        token = f"{batch['token'][:2]}00000001{batch['token'][10:]}"
        scene.audit["audit_batches"].update_one({"_id": batch["_id"]}, {"$set": {"token": token}})
    with sealed.running():
        wait_until(lambda: sealed.size == SIZE + 2, timeout=60, what="the rest is sealed")

    assert [incident.kind for incident in sealed.incidents] == ["WATCH-LOST"]
    assert [kind for kind, _ in sealed.findings()] == ["STREAM-GAP"]


def test_a_writer_that_sets_back_its_clock_is_found(scene: Scene) -> None:
    sealed = scene.sealed
    log = sealed.deployment.services().log
    early = an_entry(sealed.deployment, created_at=sealed.deployment.services().clock.now() - timedelta(days=2))
    late = an_entry(sealed.deployment, created_at=sealed.deployment.services().clock.now() + timedelta(hours=2))
    for entry in (early, late):
        log.databases.transact(lambda session, entry=entry: log.append(entry, session=session))
    sealed.append(1)
    sealed.seal_all()

    assert [(kind, what.split()[1]) for kind, what in sealed.findings()] == [
        ("BACKDATED", early.id),
        ("BACKDATED", late.id),
    ]


def test_what_is_new_is_not_yet_late(scene: Scene) -> None:
    scene.sealed.append(2)
    report = scene.sealed.verify()
    assert (report.findings, report.pending, report.entries) == ((), 2, SIZE)

    later = scene.sealed.deployment.admin.server_time() + timedelta(minutes=2)
    assert {kind for kind, _ in scene.sealed.findings(now=later)} == {"UNSEALED"}
    assert {kind for kind, _ in scene.sealed.findings(now=later, since=scene.kept[2])} == {"UNSEALED"}


def test_an_attacker_with_object_ids_changes_nothing(scene: Scene) -> None:
    assert ObjectId.is_valid("0" * 24)
    assert scene.sealed.verify().checkpoints == (scene.kept[2],)


def test_several_processes_find_the_same(scene: Scene) -> None:
    uri = scene.sealed.deployment.addresses.mongodb_uri(Role.AUDITOR)
    scene.entries.update_one({"_id": scene.ids[5]}, {"$set": {"outcome": "denied"}})
    scene.entries.delete_one({"_id": scene.ids[7]})

    report = scene.sealed.verify(parallel=Parallel(uri, 2))

    assert report == scene.sealed.verify()
    assert [found.fault for found in report.findings] == [Fault.MODIFIED, Fault.MISSING]
    assert uri not in repr(Parallel(uri, 2))


def test_the_server_itself_takes_an_entry_with_a_field_twice_and_nothing_shows_it(scene: Scene) -> None:
    put_back(scene, 5, doubled(scene.entry(5), "outcome", "denied"))
    log = scene.sealed.deployment.services().log

    assert scene.entries.count_documents({"outcome": "denied"}) == 1
    with pytest.raises(IntegrityError, match=f"audit entry {scene.ids[5]} is not as it was written"):
        log.find(scene.ids[5])
    with pytest.raises(IntegrityError, match="is not as it was written"):
        list(log.about("user", scene.entry(5)["entity_id"]))
    assert log.find(scene.ids[4])["_id"] == scene.ids[4]
