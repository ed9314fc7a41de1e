"""Whatever root does to the audit database is an incident within a second; what our processes do is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from ordinary import NOON, ordinary_load
from sealed import SealedLog
from signing import TRUST, WRITER_KEY, a_writer, signed
from tampering import MARK, an_entry, following, incidents, kinds, sentences, wait_for_mark
from waiting import wait_until

from compliance.audit.entry import Entry
from compliance.audit.incident import Kind
from compliance.audit.keys import SigningKey
from compliance.audit.pruned import PRUNED
from compliance.audit.schema import VALIDATORS
from compliance.mongo import Databases, Document, Session
from compliance.provision import ensure_audit_log
from compliance.roles import AUDIT_LOG, CHECKPOINTS, COSIGNATURES, INCIDENTS, TILES, Role
from worker.tamper import TamperWatch

Tampering = Callable[[Databases], object]


@contextmanager
def watching(deployment: Deployment) -> Iterator[None]:
    with following(deployment, TamperWatch):
        yield


def an_id(databases: Databases) -> str:
    found = databases.audit[AUDIT_LOG].find_one(sort=[("_id", 1)])
    assert found is not None
    return str(found["_id"])


def replace_one(databases: Databases) -> None:
    entry = databases.audit[AUDIT_LOG].find_one({"_id": an_id(databases)})
    assert entry is not None
    databases.audit[AUDIT_LOG].replace_one({"_id": entry["_id"]}, entry | {"outcome": "failure"})


def delete_and_reinsert(databases: Databases) -> None:
    entry = databases.audit[AUDIT_LOG].find_one_and_delete({"_id": an_id(databases)})
    assert entry is not None
    databases.audit[AUDIT_LOG].insert_one(entry | {"outcome": "failure"})


def in_transaction(databases: Databases) -> None:
    def work(session: Any) -> None:
        databases.audit[AUDIT_LOG].update_one(
            {"_id": an_id(databases)}, {"$set": {"outcome": "failure"}}, session=session
        )

    databases.transact(work)


def delete_in_transaction(databases: Databases) -> None:
    databases.transact(
        lambda session: databases.audit[AUDIT_LOG].delete_one({"_id": an_id(databases)}, session=session)
    )


def an_update(databases: Databases) -> object:
    return databases.audit[AUDIT_LOG].update_one({"_id": an_id(databases)}, {"$set": {"outcome": "failure"}})


def change(collection: str, **options: Any) -> Tampering:
    return lambda databases: databases.audit.command("collMod", collection, **options)


def rename_in(databases: Databases) -> None:
    databases.app["theirs"].insert_one({})
    databases.client.admin.command(
        "renameCollection", f"{databases.app.name}.theirs", to=f"{databases.audit.name}.{TILES}", dropTarget=True
    )


TAMPERING: dict[str, tuple[Tampering, list[Kind]]] = {
    "update": (an_update, [Kind.MODIFIED]),
    "update that fails the validator": (
        lambda databases: databases.audit.get_collection(AUDIT_LOG).update_one(
            {"_id": an_id(databases)}, {"$set": {"email": "a@b"}}, bypass_document_validation=True
        ),
        [Kind.MODIFIED],
    ),
    "replace": (replace_one, [Kind.MODIFIED]),
    "delete": (lambda databases: databases.audit[AUDIT_LOG].delete_one({"_id": an_id(databases)}), [Kind.DELETED]),
    "delete and insert again": (delete_and_reinsert, [Kind.DELETED]),
    "update in a transaction": (in_transaction, [Kind.MODIFIED]),
    "delete in a transaction": (delete_in_transaction, [Kind.DELETED]),
    "a TTL index": (
        lambda databases: databases.audit[AUDIT_LOG].create_index("created_at", expireAfterSeconds=99999),
        [Kind.INDEX_CHANGED],
    ),
    "a unique index": (
        lambda databases: databases.audit[CHECKPOINTS].create_index("note", unique=True),
        [Kind.INDEX_CHANGED],
    ),
    "a dropped index": (
        lambda databases: databases.audit[AUDIT_LOG].drop_index("ix_audit_entity"),
        [Kind.INDEX_CHANGED],
    ),
    "a hidden index": (change(AUDIT_LOG, index={"name": "ix_audit_entity", "hidden": True}), [Kind.INDEX_CHANGED]),
    "no validator": (change(AUDIT_LOG, validator={}), [Kind.SCHEMA_CHANGED]),
    "validation off": (change(AUDIT_LOG, validationLevel="off"), [Kind.SCHEMA_CHANGED]),
    "validation that only warns": (change(INCIDENTS, validationAction="warn"), [Kind.SCHEMA_CHANGED]),
    "pre-images on": (change(AUDIT_LOG, changeStreamPreAndPostImages={"enabled": True}), [Kind.SCHEMA_CHANGED]),
    "rename": (lambda databases: databases.audit[TILES].rename("other"), [Kind.RENAMED]),
    "capped": (
        lambda databases: databases.audit.command("convertToCapped", COSIGNATURES, size=1_000_000),
        [Kind.CREATED, Kind.REPLACED],
    ),
    "another collection moved in": (rename_in, [Kind.CREATED, Kind.REPLACED]),
    "drop": (lambda databases: databases.audit[CHECKPOINTS].drop(), [Kind.DROPPED]),
    "drop and write": (
        lambda databases: (databases.audit[CHECKPOINTS].drop(), databases.audit[CHECKPOINTS].insert_one({"x": 1})),
        [Kind.DROPPED, Kind.SCHEMA_CHANGED],
    ),
    "another collection": (
        lambda databases: databases.audit["other"].insert_many([{"n": n} for n in range(30)]),
        [Kind.CREATED],
    ),
    "a view": (
        lambda databases: databases.audit.create_collection("seen", viewOn=AUDIT_LOG, pipeline=[]),
        [Kind.CREATED],
    ),
}


@pytest.fixture
def filled(empty: Deployment) -> Deployment:
    """A database with three entries, and no migration: the collection of tokens is made by the first token."""
    for number in range(3):
        an_entry(empty, f"e-{number}")
    return empty


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_an_incident_within_a_second(filled: Deployment, name: str) -> None:
    tamper, expected = TAMPERING[name]
    with watching(filled):
        an_entry(filled, "e-3")
        tamper(filled.admin)
        wait_until(lambda: len(incidents(filled)) >= len(expected), timeout=1, what="an incident is kept")
        settle(filled)

    assert kinds(filled) == sorted(expected)


def settle(deployment: Deployment) -> None:
    """Return when the stream has passed what was done so far: a collection that was made now has been seen."""
    name = f"{MARK}{ObjectId()}"
    deployment.admin.audit.create_collection(name)
    wait_for_mark(deployment, name)


def test_the_audit_database_is_dropped_and_the_alarm_goes_on(filled: Deployment) -> None:
    with watching(filled):
        filled.admin.client.drop_database(filled.admin.audit.name)
        expected = {f"{name} was dropped" for name in VALIDATORS} | {"the database was dropped"}
        wait_until(lambda: expected <= sentences(filled), timeout=5, what="every drop is kept")
        ensure_audit_log(filled.admin)
        an_entry(filled, "e-3")
        an_update(filled.admin)
        wait_until(lambda: "MODIFIED" in kinds(filled), timeout=5, what="the stream came back")

    assert set(kinds(filled)) == {"DROPPED", "SCHEMA-CHANGED", "MODIFIED"}


def test_what_happens_while_nobody_watches_is_seen_on_return(filled: Deployment) -> None:
    with watching(filled):
        pass
    an_update(filled.admin)
    filled.admin.audit[TILES].drop()

    with watching(filled):
        wait_until(lambda: len(incidents(filled)) == 2, timeout=5, what="both incidents are kept")
        settle(filled)

    assert kinds(filled) == ["DROPPED", "MODIFIED"]


def test_a_lost_oplog_is_an_incident_and_the_stream_begins_again(filled: Deployment) -> None:
    with watching(filled):
        pass
    fault = {"failCommands": ["aggregate"], "errorCode": 286, "appName": Role.SEALER.value}
    filled.admin.client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fault)

    with watching(filled):
        wait_until(lambda: kinds(filled) == ["WATCH-LOST"], timeout=5, what="the gap is an incident")
        an_update(filled.admin)
        wait_until(lambda: len(incidents(filled)) == 2, timeout=5, what="the stream is followed again")

    assert kinds(filled) == ["MODIFIED", "WATCH-LOST"]


def test_two_watchers_keep_one_incident(filled: Deployment) -> None:
    with watching(filled), watching(filled):
        an_update(filled.admin)
        settle(filled)

    assert kinds(filled) == ["MODIFIED"]


def test_what_is_restored_as_it_was_declared_is_an_incident_once(filled: Deployment) -> None:
    with watching(filled):
        filled.admin.audit.command("collMod", AUDIT_LOG, validator={})
        filled.admin.audit.command("collMod", AUDIT_LOG, validator=VALIDATORS[AUDIT_LOG])
        filled.admin.audit[AUDIT_LOG].drop_index("ix_audit_request")
        ensure_audit_log(filled.admin)
        settle(filled)

    assert kinds(filled) == ["INDEX-CHANGED", "SCHEMA-CHANGED"]


def test_no_value_of_a_document_is_repeated(filled: Deployment) -> None:
    person = "ann.smith@example.org"
    with watching(filled):
        filled.admin.audit["other"].insert_one({"_id": person})
        filled.admin.audit["other"].delete_one({"_id": person})
        settle(filled)

    assert kinds(filled) == ["CREATED", "DELETED"]
    assert not any("ann" in sentence for sentence in sentences(filled))


def pruning(*, entries: int, key: SigningKey = WRITER_KEY, number: int = 9) -> Document:
    """The entry of a pruning, signed."""
    (document,) = signed(
        Entry(
            event=f"prune-{number}",
            entity_type="log",
            entity_id="audit_log",
            action=PRUNED,
            created_at=NOON,
            performed_by="test",
            details={"entries": entries},
        ),
        writer=a_writer(key),
    )
    return document


def prune(deployment: Deployment, recorded: Document | None, *, deletes: int) -> None:
    databases = deployment.admin
    log = databases.audit[AUDIT_LOG]
    ids = [entry["_id"] for entry in log.find({}, {"_id": 1}, limit=deletes)]

    def work(session: Session) -> None:
        for found in ids:
            log.delete_one({"_id": found}, session=session)
        if recorded is not None:
            log.insert_one(recorded, session=session)

    databases.transact(work)


@pytest.fixture
def trusting(filled: Deployment) -> Deployment:
    """A deployment whose watcher knows the key that the tests sign with."""
    services = filled.services(Role.SEALER)
    filled._open[Role.SEALER] = replace(services, trust=replace(services.trust, writers=TRUST.writers))
    return filled


def test_what_a_signed_entry_of_the_same_transaction_prunes_is_told_of_as_one(trusting: Deployment) -> None:
    with watching(trusting):
        recorded = pruning(entries=2)
        prune(trusting, recorded, deletes=2)
        settle(trusting)

    assert kinds(trusting) == ["PRUNED"]
    assert sentences(trusting) == {f"audit_log: 2 entries were removed, as entry {recorded['_id']} says: was that you?"}


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        pruning(entries=1),
        pruning(entries=3),
        pruning(entries=2, key=SigningKey.from_seed("writer", bytes(32))),
        pruning(entries=1) | {"details": {"entries": 2}},
        pruning(entries=2) | {"action": "audit.verified"},
    ],
    ids=["no entry", "too few", "too many", "another key", "an altered entry", "another action"],
)
def test_a_pruning_that_nobody_signed_for_is_one(trusting: Deployment, recorded: Document | None) -> None:
    with watching(trusting):
        prune(trusting, recorded, deletes=2)
        settle(trusting)

    assert kinds(trusting) == ["DELETED", "DELETED"]


def test_the_entry_of_an_earlier_pruning_serves_no_second_one(trusting: Deployment) -> None:
    recorded = pruning(entries=2)
    with watching(trusting):
        prune(trusting, recorded, deletes=2)
        log = trusting.admin.audit[AUDIT_LOG]
        other = next(entry["_id"] for entry in log.find({"_id": {"$ne": recorded["_id"]}}))

        def again(session: Session) -> None:
            log.delete_one({"_id": recorded["_id"]}, session=session)
            log.delete_one({"_id": other}, session=session)
            log.insert_one(recorded, session=session)

        trusting.admin.transact(again)
        settle(trusting)

    assert kinds(trusting) == ["DELETED", "DELETED", "PRUNED"]


def test_what_our_processes_do_is_no_incident(empty: Deployment, tmp_path: Path) -> None:
    sealed = SealedLog(empty, tmp_path / "guard.json")
    with watching(empty):
        with sealed.running():
            ordinary_load(empty)
            wait_until(lambda: sealed.size >= sealed.count(), timeout=30, what="all entries are sealed")
        settle(empty)

    assert incidents(empty) == []
