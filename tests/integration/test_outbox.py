"""The outbox: what a service commits becomes exactly one job, whatever is in it and whatever dies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Int64, MinKey, ObjectId
from bson.raw_bson import RawBSONDocument
from celery import Celery
from deployment import Deployment
from faults import Died, mortal
from pymongo.errors import OperationFailure
from waiting import wait_until

from compliance.mongo import UNAUTHORIZED, Databases, Session, open_client
from compliance.roles import Role
from worker.doorbell import publisher
from worker.outbox import BATCH_DOCS, MAX_DOCUMENT_BYTES, Outbox
from worker.resume import AGAIN_AFTER, sweep
from worker.watcher import watch_all

SECRET = "ann.lee@example.org"
PERSON = "65f2c0ffee0000000000abcd"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def sender(deployment: Deployment) -> Iterator[Databases]:
    with open_client(deployment.sender_uri, app_name="test") as client:
        yield Databases(client, deployment.name)


def put(sender: Databases, *documents: Any) -> None:
    sender.compliance["outbox"].insert_many(list(documents))


def verification(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"task": "compliance.audit.verify", "kwargs": {}, "request_id": f"r-{number}", **more}


def outbox(deployment: Deployment, **changes: Any) -> Outbox:
    return Outbox(replace(deployment.services(Role.SEALER), **changes))


def jobs(deployment: Deployment, **query: Any) -> list[dict[str, Any]]:
    return list(deployment.admin.compliance["jobs"].find(query, sort={"_id": 1}))


def left(deployment: Deployment) -> int:
    return deployment.admin.compliance["outbox"].count_documents({})


@contextmanager
def following(deployment: Deployment, **changes: Any) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=outbox(deployment, **changes).follow, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_document_becomes_the_same_job_as_a_message(deployment: Deployment, sender: Databases) -> None:
    deadline = datetime(2027, 1, 1, tzinfo=UTC)
    asked = {"subject_id": PERSON, "dry_run": True, "priority": 7, "deadline": "2027-01-01T00:00:00Z"}
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    put(sender, {"task": "compliance.erasure.request", "kwargs": asked, "request_id": "r-1", "traceparent": parent})
    outbox(deployment).drain()

    (job,) = jobs(deployment)
    assert (job["kind"], job["payload"]) == ("erasure.request", {"subject_id": PERSON, "dry_run": True})
    assert (job["origin"], job["state"], job["priority"]) == ("outbox", "queued", 7)
    assert (job["deadline"], job["trace_id"]) == (deadline, TRACE)
    assert [found.request_id for found in deployment.published] == ["r-1"]
    assert left(deployment) == 0


def test_values_may_stand_as_mongodb_has_them(deployment: Deployment, sender: Databases) -> None:
    kwargs = {
        "event_id": "e-1",
        "subject_id": ObjectId(PERSON),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "priority": Int64(3),
    }
    put(sender, {"task": "compliance.consent.update", "kwargs": kwargs, "request_id": "r-1"})
    put(sender, {"task": "compliance.erasure.campaign", "kwargs": {"subject_ids": [ObjectId(PERSON)]}})
    outbox(deployment).drain()

    campaign, consent = jobs(deployment)
    assert (consent["payload"]["subject_id"], consent["payload"]["occurred_at"]) == (PERSON, "2026-05-01T12:00:00Z")
    assert campaign["payload"] == {"subject_ids": [PERSON]}


def test_without_a_request_id_the_objectid_makes_one(deployment: Deployment, sender: Databases) -> None:
    document = ObjectId()
    put(sender, {"_id": document, "task": "compliance.audit.verify"})
    outbox(deployment).drain()

    assert [job["_id"] for job in jobs(deployment)] == [f"outbox-{document}"]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def raw(**fields: Any) -> RawBSONDocument:
    """A document with text that is no UTF-8, which a driver for another language may let pass."""
    return RawBSONDocument(bson.encode(fields).replace(b"~~~~", b"\xff\xfe\xfd\xfc"))


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown task": ({"task": SECRET, "kwargs": {}, "request_id": "w-1"}, "no such task; known: compliance.audit"),
    "no task": ({"kwargs": {}, "request_id": "w-1"}, "task: Field required"),
    "an empty document": ({}, "task: Field required"),
    "a task that is a list": ({"task": [SECRET], "request_id": "w-1"}, "task: Input should be a valid string"),
    "kwargs that are a list": (verification(kwargs=[SECRET]), "kwargs: Input should be a valid dictionary"),
    "kwargs that are nothing": (verification(kwargs=None), "kwargs: Input should be a valid dictionary"),
    "a wrong payload": (verification(kwargs={"email": SECRET}), "email: Extra inputs are not permitted"),
    "a field that is a value": (verification(kwargs={SECRET: 1}), "(a field whose name is not shown)"),
    "an unknown field": (verification(email=SECRET), "email: Extra inputs are not permitted"),
    "a request id that is an address": (verification(request_id=SECRET), "looks like an e-mail address"),
    "a request id that is a number": (verification(request_id=7), "request_id: Input should be a valid string"),
    "a request id that is empty": (verification(request_id=""), "request_id: expected 1 to 128"),
    "a request id of a schedule": (verification(request_id="schedule:x:1"), "request_id: must not begin with"),
    "a request id of another document": (verification(request_id="outbox-1"), "request_id: must not begin with"),
    "an id that is an address": ({"_id": SECRET, "task": "compliance.audit.verify"}, "the _id is no ObjectId"),
    "an id that holds one": ({"_id": {"email": SECRET}, "task": "compliance.audit.verify"}, "the _id is no ObjectId"),
    "an id that is nothing": ({"_id": None, "task": "compliance.audit.verify"}, "the _id is no ObjectId"),
    "an id that is the least": ({"_id": MinKey(), "task": "compliance.audit.verify"}, "the _id is no ObjectId"),
    "an id that is NaN": ({"_id": float("nan"), "task": "compliance.audit.verify"}, "the _id is no ObjectId"),
    "an id that is a UUID": ({"_id": Binary.from_uuid(UUID(int=7)), "task": SECRET}, "the _id is no ObjectId"),
    "an id that is no text": (raw(_id="~~~~", task="compliance.audit.verify"), "the _id is no ObjectId"),
    "an id of 7 MB": ({"_id": "x" * 7_000_000}, "larger than 1048576 bytes"),
    "16 MB": (verification(kwargs={"email": SECRET * 880_000}), "larger than 1048576 bytes"),
    "one byte too large": (verification(kwargs={"a": "x" * MAX_DOCUMENT_BYTES}), "larger than 1048576 bytes"),
    "nested as deep as may be": (verification(kwargs={"subject_id": nested(170)}), "subject_id: Extra inputs"),
    "a time after all time": (
        RawBSONDocument(bson.encode(verification(kwargs={"deadline": bson.DatetimeMS(2**62)}))),
        "deadline: Input should be a valid datetime",
    ),
    "a time before all time": (verification(kwargs={"deadline": "0001-01-01T00:00:00+14:00"}), "years 1 to 9999"),
    "a number that is none": (verification(kwargs={"priority": float("nan")}), "priority: "),
}


def test_a_wrong_document_is_refused_with_its_reason_and_the_others_are_taken(
    deployment: Deployment, sender: Databases
) -> None:
    said: dict[str, str] = {}
    for number, (name, (document, _)) in enumerate(WRONG.items()):
        if not isinstance(document, RawBSONDocument) and document.get("request_id") in ("r-1", "w-1"):
            document["request_id"] = f"w-{number}"
        put(sender, {"_id": -number - 1, **verification(request_id=f"before-{number}")}, document)
        put(sender, {"_id": f"~{number}", **verification(request_id=f"after-{number}")})
        outbox(deployment).drain()
        (note,) = deployment.admin.compliance["jobs"].find({"refused": True})
        said[name] = note["error"]["message"]
        assert (name, note["state"], note["payload"]) == (name, "rejected", {})
        assert SECRET not in str(note)
        deployment.admin.compliance["jobs"].delete_one({"_id": note["_id"]})
    entries = deployment.entries(action="message.refused")

    assert {name: says for name, (_, says) in WRONG.items() if says not in said[name]} == {}
    assert (left(deployment), len(jobs(deployment, state="queued"))) == (0, 2 * len(WRONG))
    assert len(entries) == len(WRONG)
    assert {(entry["outcome"], entry["details"]["code"]) for entry in entries} == {
        ("denied", "InvalidPayload"),
        ("denied", "UnknownName"),
    }
    assert SECRET not in str(entries)


def test_a_request_id_that_was_used_otherwise_leaves_its_job_alone(deployment: Deployment, sender: Databases) -> None:
    put(sender, verification())
    outbox(deployment).drain()
    put(sender, {"task": "compliance.health.check", "request_id": "r-1"}, verification(2))
    outbox(deployment).drain()

    assert [(job["_id"], job["kind"]) for job in jobs(deployment)] == [("r-1", "audit.verify"), ("r-2", "audit.verify")]
    assert [entry["details"] for entry in deployment.entries(action="message.refused")] == [{"code": "RequestConflict"}]


def test_the_same_wrong_document_again_is_the_same_refusal(deployment: Deployment, sender: Databases) -> None:
    for _ in range(3):
        put(sender, verification(kwargs=7), verification(kwargs=7))
        outbox(deployment).drain()

    assert left(deployment) == 0
    assert len(deployment.entries(action="message.refused")) == 1


def test_a_corrected_document_may_use_the_same_request_id(deployment: Deployment, sender: Databases) -> None:
    put(sender, verification(kwargs=7))
    outbox(deployment).drain()
    put(sender, verification())
    outbox(deployment).drain()

    assert [(job["_id"], job["state"]) for job in jobs(deployment)] == [("r-1", "queued")]


def test_a_transaction_that_aborts_leaves_no_job(deployment: Deployment, sender: Databases) -> None:
    class Changed(Exception):
        """The service thinks better of it."""

    def work(session: Session) -> None:
        sender.compliance["outbox"].insert_one(verification(1), session=session)
        raise Changed

    with following(deployment):
        with pytest.raises(Changed):
            sender.transact(work)
        put(sender, verification(2))
        wait_until(lambda: bool(jobs(deployment)), timeout=20, what="the second is taken")

    assert [job["_id"] for job in jobs(deployment)] == ["r-2"]


def test_an_insert_rings_and_a_burst_is_taken_in_batches(deployment: Deployment, sender: Databases) -> None:
    with following(deployment):
        for batch in range(3):
            put(sender, *(verification(batch * 1000 + number) for number in range(BATCH_DOCS)))
        wait_until(lambda: left(deployment) == 0, timeout=30, what="the outbox is empty")

    expected = {f"r-{batch * 1000 + number}" for batch in range(3) for number in range(BATCH_DOCS)}
    assert {job["_id"] for job in jobs(deployment)} == expected
    assert sorted(job.request_id for job in deployment.published) == sorted(expected)


def test_what_was_put_in_while_nobody_listened_is_taken_first(deployment: Deployment, sender: Databases) -> None:
    put(sender, verification(1))
    stop = threading.Event()
    thread = threading.Thread(target=watch_all, args=(deployment.services(Role.SEALER), stop.is_set))
    thread.start()
    wait_until(lambda: left(deployment) == 0, timeout=20, what="the outbox is empty")
    put(sender, verification(2))
    wait_until(lambda: left(deployment) == 0, timeout=20, what="the outbox is empty again")
    stop.set()
    thread.join(20)

    assert [job["_id"] for job in jobs(deployment, origin="outbox")] == ["r-1", "r-2"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_watcher_that_dies_around_its_commit_loses_and_repeats_nothing(
    deployment: Deployment, sender: Databases, *, committed: bool
) -> None:
    put(sender, *(verification(number) for number in range(3)), {"task": SECRET, "request_id": "w-1"})
    dying = mortal(deployment.services(Role.SEALER).databases, at=1, committed=committed)
    with pytest.raises(Died):
        outbox(deployment, databases=dying).drain()
    before = len(jobs(deployment))
    outbox(deployment).drain()

    assert (before, left(deployment)) == (4 if committed else 0, 0)
    assert [job["_id"] for job in jobs(deployment)] == ["r-0", "r-1", "r-2", "w-1"]
    assert len(deployment.entries(action="message.refused")) == 1


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_watcher_that_dies_while_it_rings_leaves_the_rest_to_the_sweeper(
    deployment: Deployment, sender: Databases, at: int
) -> None:
    rung: list[str] = []

    def publish(job: Any) -> None:
        if len(rung) == at:
            raise Died
        rung.append(job.request_id)

    put(sender, *(verification(number) for number in range(3)))
    with pytest.raises(Died):
        outbox(deployment, publish=publish).drain()
    outbox(deployment).drain()

    assert (len(jobs(deployment, state="queued")), left(deployment)) == (3, 0)
    assert sweep(deployment.services()) == 3


def test_without_a_broker_the_job_is_recorded_and_rung_for_later(deployment: Deployment, sender: Databases) -> None:
    with Celery("no-broker", broker="redis://127.0.0.1:1/0", set_as_current=False) as app:
        put(sender, verification())
        outbox(deployment, publish=publisher(app)).drain()

    assert [job["state"] for job in jobs(deployment)] == ["queued"]
    assert sweep(deployment.services()) == 1
    assert [job.request_id for job in deployment.published] == ["r-1"]
    assert timedelta(minutes=1) >= AGAIN_AFTER


def test_two_watchers_at_once_make_one_job_of_each_document(deployment: Deployment, sender: Databases) -> None:
    put(sender, *(verification(number) for number in range(250)))
    put(sender, *({"task": SECRET, "request_id": f"w-{number}"} for number in range(50)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: outbox(deployment).drain(), range(2)))

    assert left(deployment) == 0
    assert (len(jobs(deployment, state="queued")), len(jobs(deployment, refused=True))) == (250, 50)
    assert len(deployment.entries(action="message.refused")) == 50
    assert len(deployment.published) == 250


def test_a_bug_in_reading_one_document_keeps_no_other_waiting(deployment: Deployment, sender: Databases) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(SECRET)

    put(sender, {"task": "compliance.erasure.request", "kwargs": {"subject_id": PERSON}, "request_id": "w-1"})
    put(sender, verification())
    outbox(deployment, data_map=Broken()).drain()

    assert left(deployment) == 0
    assert [job["_id"] for job in jobs(deployment, state="queued")] == ["r-1"]
    (note,) = jobs(deployment, refused=True)
    assert "cannot be read (RuntimeError)" in note["error"]["message"]
    assert SECRET not in str(note)


DENIED: dict[str, Any] = {
    "read the outbox": lambda found: found.compliance["outbox"].find_one(),
    "change the outbox": lambda found: found.compliance["outbox"].update_one({}, {"$set": {"a": 1}}),
    "empty the outbox": lambda found: found.compliance["outbox"].delete_many({}),
    "follow the outbox": lambda found: found.compliance["outbox"].watch(),
    "index the outbox": lambda found: found.compliance["outbox"].create_index("task"),
    "drop the outbox": lambda found: found.compliance.command("drop", "outbox"),
    "pass by a validator": lambda found: found.compliance.command(
        "insert", "outbox", documents=[{}], bypassDocumentValidation=True
    ),
    "write a job": lambda found: found.compliance["jobs"].insert_one({"_id": "r-1"}),
    "read jobs": lambda found: found.compliance["jobs"].find_one(),
    "read requests": lambda found: found.compliance["erasure_requests"].find_one(),
    "place a hold": lambda found: found.compliance["holds"].insert_one({}),
    "list collections": lambda found: found.compliance.command("listCollections", authorizedCollections=False),
    "read people": lambda found: found.app["users"].find_one(),
    "write people": lambda found: found.app["users"].insert_one({}),
    "read the log": lambda found: found.audit["audit_log"].find_one(),
    "write the log": lambda found: found.audit["audit_log"].insert_one({}),
    "read users": lambda found: found.compliance.command("usersInfo"),
    "change its password": lambda found: found.compliance.command("updateUser", "compliance_sender", pwd="x"),
}


def test_a_sender_may_insert_into_the_outbox_and_nothing_else(deployment: Deployment, sender: Databases) -> None:
    for name, attempt in DENIED.items():
        with pytest.raises(OperationFailure) as refused:
            attempt(sender)
        assert (name, refused.value.code) == (name, UNAUTHORIZED)

    put(sender, verification())
    assert left(deployment) == 1
