"""What change streams do not show is seen in the oplog; what our processes and the application do is no incident."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from bson import Binary, ObjectId, Timestamp
from deployment import Deployment
from ordinary import ordinary_load
from pymongo.errors import OperationFailure
from tampering import MARK, an_entry, entry, following, incidents, kinds, sentences, wait_for_mark
from waiting import wait_until

import worker.oplog
from compliance.audit.incident import Kind
from compliance.audit.log import AuditLog
from compliance.mongo import Databases, Document, Session
from compliance.roles import AUDIT_LOG, Role
from worker.oplog import PLACE_ID, OplogWatch

Act = Callable[[Deployment], object]
MEGABYTE = "x" * 1_000_000


@contextmanager
def watching(deployment: Deployment) -> Iterator[None]:
    with following(deployment, OplogWatch):
        yield


def settle(deployment: Deployment) -> None:
    """Return when the oplog was read up to now."""
    name = f"{MARK}{ObjectId()}"
    deployment.admin.app.create_collection(name)
    apply_ops(deployment.admin, insert(f"{deployment.name}.{name}", {"_id": 1}))
    wait_for_mark(deployment, name)


def apply_ops(databases: Databases, *operations: Document, **options: Any) -> None:
    databases.client.admin.command("applyOps", list(operations), **options)


def insert(where: str, document: Document) -> Document:
    return {"op": "i", "ns": where, "o": document}


def an_update(databases: Databases) -> Document:
    entry = databases.audit[AUDIT_LOG].find_one({})
    assert entry is not None
    change = {"$v": 2, "diff": {"u": {"outcome": "failure"}}}
    return {"op": "u", "ns": f"{databases.audit.name}.{AUDIT_LOG}", "o2": {"_id": entry["_id"]}, "o": change}


def a_delete(databases: Databases) -> Document:
    entry = databases.audit[AUDIT_LOG].find_one({})
    assert entry is not None
    return {"op": "d", "ns": f"{databases.audit.name}.{AUDIT_LOG}", "o": {"_id": entry["_id"]}}


def nested(databases: Databases) -> Document:
    return {"op": "c", "ns": "admin.$cmd", "o": {"applyOps": [a_delete(databases)]}}


BY_HAND: dict[str, tuple[Act, str]] = {
    "update": (lambda at: apply_ops(at.admin, an_update(at.admin)), "1 x update {}_audit.audit_log"),
    "delete": (lambda at: apply_ops(at.admin, a_delete(at.admin)), "1 x delete {}_audit.audit_log"),
    "insert": (
        lambda at: apply_ops(at.admin, insert(f"{at.name}_audit.other", {"_id": "ann.smith@example.org"})),
        "1 x insert {}_audit.other",
    ),
    "marked as migrated": (
        lambda at: apply_ops(at.admin, an_update(at.admin) | {"fromMigrate": True}),
        "1 x update {}_audit.audit_log",
    ),
    "within another": (lambda at: apply_ops(at.admin, nested(at.admin)), "1 x delete {}_audit.audit_log"),
    "in a session": (
        lambda at: apply_ops(at.admin, a_delete(at.admin), lsid={"id": Binary(b"1" * 16, 4)}),
        "1 x delete {}_audit.audit_log",
    ),
    "in the application": (
        lambda at: apply_ops(at.admin, insert(f"{at.name}.users", {"_id": 1})),
        "1 x insert {}.users",
    ),
    "in our own database": (
        lambda at: apply_ops(at.admin, insert(f"{at.name}_compliance.jobs", {"_id": "r-1"})),
        "1 x insert {}_compliance.jobs",
    ),
}


@pytest.fixture
def filled(empty: Deployment) -> Deployment:
    """A database with an entry, and with the collections that the acts need."""
    an_entry(empty)
    empty.admin.audit.create_collection("other")
    for name in ("users", "blobs"):
        empty.admin.app.create_collection(name)
    empty.admin.compliance.create_collection("jobs")
    return empty


@pytest.mark.parametrize("name", BY_HAND)
def test_apply_ops_by_hand_is_an_incident_within_a_second(filled: Deployment, name: str) -> None:
    act, expected = BY_HAND[name]
    with watching(filled):
        act(filled)
        wait_until(lambda: bool(incidents(filled)), timeout=1, what="an incident is kept")
        settle(filled)

    (found,) = incidents(filled)
    assert found["kind"] == Kind.APPLY_OPS.value
    assert found["what"].endswith(expected.format(filled.name))
    assert "ann" not in found["what"]


def write(databases: Databases, *, documents: int = 1, before: Callable[[Session], object] = lambda _: None) -> None:
    """Write documents of the application in one transaction, behind what *before* does."""

    def work(session: Session) -> None:
        before(session)
        for _ in range(documents):
            databases.app["blobs"].insert_one({"value": MEGABYTE if documents > 1 else "x"}, session=session)

    databases.transact(work)


def a_job(databases: Databases) -> Callable[[Session], object]:
    return lambda session: databases.compliance["jobs"].insert_one({"_id": "r-1"}, session=session)


def an_entry_of(databases: Databases) -> Callable[[Session], object]:
    return lambda session: AuditLog(databases).append(entry("e-1", databases), session=session)


def migrator(deployment: Deployment) -> Databases:
    return deployment.services(Role.MIGRATOR).databases


UNAUDITED: dict[str, tuple[Act, str]] = {
    "a transaction of a migrator": (lambda at: write(migrator(at)), "compliance_migrator wrote "),
    "a large one": (lambda at: write(migrator(at), documents=18), "compliance_migrator wrote "),
    "a write alone": (
        lambda at: migrator(at).app["blobs"].insert_one({"value": "x"}),
        "compliance_migrator wrote ",
    ),
    "an update of a worker": (
        lambda at: at.worker.app["users"].update_one({"_id": 7}, {"$set": {"value": "ann.smith@example.org"}}),
        "compliance_worker wrote ",
    ),
    "the work of a job as another user": (lambda at: write(at.admin, before=a_job(at.admin)), "a process wrote "),
}


@pytest.mark.parametrize("name", UNAUDITED)
def test_a_write_of_ours_without_its_entry_is_an_incident(filled: Deployment, name: str) -> None:
    filled.admin.app["users"].insert_one({"_id": 7})
    act, who = UNAUDITED[name]
    with watching(filled):
        act(filled)
        settle(filled)

    (found,) = incidents(filled)
    assert found["kind"] == Kind.UNAUDITED_WRITE.value
    assert found["what"].startswith(who)
    assert f"{filled.name}." in found["what"]
    assert "ann" not in found["what"]


ORDINARY: dict[str, Act] = {
    "a transaction of the application": lambda at: write(at.admin),
    "a large one": lambda at: write(at.admin, documents=18),
    "a write of the application": lambda at: at.admin.app["blobs"].insert_one({"value": "x"}),
    "a request in the outbox": lambda at: at.admin.transact(
        lambda session: (
            at.admin.app["blobs"].insert_one({"value": "x"}, session=session),
            at.admin.compliance["outbox"].insert_one({"task": "none"}, session=session),
        )
    ),
    "an entry alone": lambda at: an_entry(at, "e-2"),
    "a job alone": lambda at: at.worker.compliance["jobs"].insert_one({"_id": "r-2"}),
    "another database": lambda at: at.admin.client[f"{at.name}x"]["users"].insert_one({}),
    "a write of ours with its entry": lambda at: write(migrator(at), before=an_entry_of(migrator(at))),
    "a large one with its entry": lambda at: write(migrator(at), documents=18, before=an_entry_of(migrator(at))),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_as_it_should_be_is_no_incident(filled: Deployment, name: str) -> None:
    with watching(filled):
        ORDINARY[name](filled)
        settle(filled)

    assert incidents(filled) == []


def test_what_our_processes_do_is_no_incident(empty: Deployment) -> None:
    with watching(empty):
        ordinary_load(empty)
        settle(empty)

    assert incidents(empty) == []


def test_what_happens_while_nobody_watches_is_seen_on_return(filled: Deployment) -> None:
    with watching(filled):
        pass
    apply_ops(filled.admin, an_update(filled.admin))

    with watching(filled):
        settle(filled)
    with watching(filled):
        settle(filled)

    assert kinds(filled) == ["APPLY-OPS"]


def place(deployment: Deployment) -> Timestamp:
    saved = deployment.admin.compliance["watch_tokens"].find_one({"_id": PLACE_ID})
    assert saved is not None
    found: Timestamp = saved["token"]["ts"]
    return found


def set_place(deployment: Deployment, found: Timestamp) -> None:
    deployment.admin.compliance["watch_tokens"].update_one(
        {"_id": PLACE_ID}, {"$set": {"token": {"ts": found}}}, upsert=True
    )


@pytest.mark.parametrize(("seconds", "kind"), [(1, Kind.WATCH_LOST), (2**32 - 1, Kind.ROLLBACK)])
def test_a_place_that_the_oplog_does_not_have_is_an_incident(filled: Deployment, seconds: int, kind: Kind) -> None:
    set_place(filled, Timestamp(seconds, 1))
    with watching(filled):
        apply_ops(filled.admin, a_delete(filled.admin))
        settle(filled)

    assert kinds(filled) == sorted(["APPLY-OPS", kind.value])
    assert any(sentence.startswith("the oplog ") for sentence in sentences(filled))


def test_the_place_moves_on_while_nothing_happens_that_matters(
    filled: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.oplog, "IDLE_SAVE", timedelta(0))
    with watching(filled):
        filled.admin.app["users"].insert_one({})
        newest = filled.admin.client["local"]["oplog.rs"].find_one(sort=[("$natural", -1)])
        assert newest is not None
        wait_until(lambda: place(filled) >= newest["ts"], timeout=5, what="the place moves on")

    assert incidents(filled) == []


def test_the_watcher_may_read_the_oplog_and_no_other_user_of_ours(filled: Deployment) -> None:
    for role in (Role.WORKER, Role.MIGRATOR, Role.AUDITOR):
        client = filled.services(role).databases.client
        with pytest.raises(OperationFailure, match="not authorized"):
            client["local"]["oplog.rs"].find_one({})
    sealer = filled.services(Role.SEALER).databases.client

    assert sealer["local"]["oplog.rs"].find_one({}) is not None
