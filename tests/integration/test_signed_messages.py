"""Signed messages: who may ask, what only rings, and what is left of those that are refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from pydantic import SecretStr

from compliance.clock import SystemClock
from compliance.jobs.job import Job
from compliance.roles import Role
from worker.client import Client
from worker.intake import Message, receive, submit
from worker.job import JobKind
from worker.outbox import Outbox
from worker.services import Services
from worker.signature import Seal, seal
from worker.tasks import JOBS

KEY, OTHER = "k" * 32, "x" * 32
KEYS = json.dumps({"crm": {"keys": [KEY]}, "shop": {"keys": [OTHER], "tasks": ["compliance.consent.update"]}})
SECRET = "ann.lee@example.org"
PERSON = str(ObjectId())
ERASURE, VERIFY = JOBS["erasure.request"], JOBS["audit.verify"]


@pytest.fixture
def signed(deployment: Deployment) -> Services:
    """The services of a worker that takes signed messages only."""
    return deployment.with_settings(signing_keys=SecretStr(KEYS)).services()


def message(
    signed_kind: JobKind = VERIFY, signed_values: Mapping[str, Any] = MappingProxyType({}), **changes: Any
) -> Message:
    """A message that *crm* signed, then changed by *changes*."""
    now = int(SystemClock().now().timestamp())
    given = seal(signed_kind.task, signed_values, request_id="r-1", service="crm", key=KEY, timestamp=now)
    return replace(Message(kind=signed_kind, values=signed_values, request_id="r-1", seal=given), **changes)


def at(offset: timedelta) -> Seal:
    stamp = int((SystemClock().now() + offset).timestamp())
    return seal(VERIFY.task, {}, request_id="r-1", service="crm", key=KEY, timestamp=stamp)


def job_of(services: Services, request_id: str = "r-1") -> Job | None:
    return services.ledger.find(request_id)


def test_a_signed_message_is_carried_out(signed: Services) -> None:
    receive(message(), services=signed)

    assert (job := job_of(signed)) is not None
    assert job.state == "done"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seal": None}, "is not signed"),
        ({"values": {"priority": 9}}, "does not fit"),
        ({"request_id": "r-2"}, "does not fit"),
        ({"kind": JOBS["health.check"]}, "does not fit"),
        ({"seal": at(-timedelta(days=1, seconds=5))}, "older than 86400 seconds"),
        ({"seal": Seal(service=SECRET, timestamp=1, signature="v1=0")}, "not known here"),
    ],
)  # fmt: skip
def test_another_one_is_refused_recorded_and_not_tried_again(
    deployment: Deployment, signed: Services, changes: dict[str, Any], says: str
) -> None:
    receive(message(**changes), services=signed)

    (note,) = deployment.admin.compliance["jobs"].find({"sender": None})
    (entry,) = deployment.entries(action="message.refused")
    assert (note["refused"], note["state"], note["payload"]) == (True, "rejected", {})
    assert (note["error"]["code"], entry["details"]) == ("UntrustedSender", {"code": "UntrustedSender"})
    assert says in note["error"]["message"]
    assert SECRET not in f"{note}{entry}"
    assert signed.ledger.take_due(limit=10, again_after=timedelta()) == []


def test_a_service_may_ask_only_for_its_tasks(signed: Services) -> None:
    now = int(SystemClock().now().timestamp())
    given = seal(VERIFY.task, {}, request_id="r-1", service="shop", key=OTHER, timestamp=now)
    receive(message(seal=given), services=signed)

    assert (job := job_of(signed)) is not None
    assert (job.error or {})["message"] == "shop may not ask for compliance.audit.verify"
    assert job.sender is None


@pytest.mark.parametrize(
    ("kind", "values", "state"),
    [
        (VERIFY, {}, "done"),
        (replace(JOBS["audit.heartbeat"], is_small=True), {}, "done"),
        (VERIFY, {"nonsense": 1}, "rejected"),
    ],
    ids=["under a lease", "at once", "refused"],
)
def test_the_job_says_which_service_was_proven_to_ask(
    signed: Services, kind: JobKind, values: dict[str, Any], state: str
) -> None:
    receive(message(kind, values), services=signed)

    assert (job := job_of(signed)) is not None
    assert (job.sender, job.state) == ("crm", state)


def test_a_service_that_nobody_verified_is_not_named(deployment: Deployment) -> None:
    receive(message(), services=deployment.services())

    assert (job := job_of(deployment.services())) is not None
    assert (job.state, job.sender) == ("done", None)


def test_who_repeats_a_request_does_not_become_its_sender(signed: Services) -> None:
    submit(VERIFY, {}, request_id="r-1", origin="cli", services=signed)
    receive(message(), services=signed)

    assert (job := job_of(signed)) is not None
    assert (job.state, job.sender) == ("done", None)


def test_the_requests_of_a_campaign_have_its_sender(deployment: Deployment, signed: Services) -> None:
    receive(message(JOBS["erasure.campaign"], {"subject_ids": [PERSON, str(ObjectId())]}), services=signed)

    senders = [stored["sender"] for stored in deployment.admin.compliance["jobs"].find({"kind": ERASURE.name})]
    assert senders == ["crm", "crm"]


def test_a_sound_message_takes_the_place_of_a_forged_one(signed: Services) -> None:
    receive(message(seal=None), services=signed)
    receive(message(), services=signed)

    assert (job := job_of(signed)) is not None
    assert job.state == "done"


def test_a_forged_message_never_touches_a_job(signed: Services) -> None:
    receive(message(), services=signed)
    before = job_of(signed)
    receive(message(ERASURE, {"subject_id": PERSON}, seal=None), services=signed)

    assert job_of(signed) == before


def test_the_same_signed_message_again_is_the_same_job(deployment: Deployment, signed: Services) -> None:
    for _ in range(3):
        receive(message(), services=signed)

    assert len(deployment.entries(action="audit.verified")) == 1


def test_what_only_rings_for_a_recorded_job_needs_no_signature(signed: Services) -> None:
    submit(VERIFY, {}, request_id="r-1", origin="cli", services=signed)
    receive(message(seal=None), services=signed)

    assert (job := job_of(signed)) is not None
    assert job.state == "done"


@pytest.mark.parametrize(
    "other",
    [
        {"request_id": "r-2"},
        {"values": {"subject_id": str(ObjectId())}},
        {"values": {"subject_id": PERSON, "dry_run": True}},
        {"kind": VERIFY, "values": {}},
    ],
    ids=["another id", "another person", "another payload", "another kind"],
)
def test_what_asks_for_more_than_the_recorded_job_is_refused(signed: Services, other: dict[str, Any]) -> None:
    submit(ERASURE, {"subject_id": PERSON}, request_id="r-1", origin="cli", services=signed)
    receive(replace(message(ERASURE, {"subject_id": PERSON}, seal=None), **other), services=signed)

    assert (job := job_of(signed)) is not None
    assert (job.state, job.attempts) == ("queued", 0)


def test_the_note_of_a_refusal_is_no_job_to_ring_for(signed: Services) -> None:
    for _ in range(2):
        receive(message(seal=None), services=signed)

    assert (job := job_of(signed)) is not None
    assert (job.state, job.attempts) == ("rejected", 0)


def test_a_document_of_the_outbox_needs_no_signature(deployment: Deployment) -> None:
    settings = {"signing_keys": SecretStr(KEYS)}
    with Client(deployment.sender_uri, database=deployment.name) as client:
        client.submit("compliance.audit.verify", {}, request_id="r-1")
    changed = deployment.with_settings(**settings)
    Outbox(changed.services(Role.SEALER)).drain()

    (bell,) = deployment.published
    receive(Message(kind=VERIFY, values=bell.payload, request_id=bell.request_id), services=changed.services())
    assert (job := job_of(changed.services())) is not None
    assert job.state == "done"
