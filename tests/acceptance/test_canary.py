"""Values that are planted in the database and in wrong messages are found nowhere else (G7)."""

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import oracle
import places
import pytest
from bson import ObjectId
from celery import Celery
from counting import COUNTERS, QUEUE, QUOTING, add_counters, allow_counting
from packages import exported, rewrite
from supervisor import TESTS, Supervised, supervised
from system import System

from compliance.roles import Role
from worker.embedded.ports import pick_port

pytestmark = pytest.mark.timeout(400)

WRONG = 14  # messages of ``send_wrong``; each leaves a note
ERASURE, CONSENT, BULK = "compliance.erasure.request", "compliance.consent.update", "compliance.export.run"


@dataclass(slots=True)
class Canary:
    """Two values that nobody else has: one of a person in the database, one that a service sends by mistake."""

    system: System
    planted: str = field(default_factory=lambda: f"planted{secrets.token_hex(8)}")
    sent: str = field(default_factory=lambda: f"sent{secrets.token_hex(8)}")
    tasks: list[str] = field(default_factory=list)

    def plant(self, subject: ObjectId) -> None:
        """Make it the name, the address and the words of a person, and of one who is not declared."""
        address, app = f"{self.planted}.{subject}@example.org", self.system.deployment.admin.app
        app["users"].update_one({"_id": subject}, {"$set": {"email": address, "preferences.motto": self.planted}})
        app["artists"].update_many({"user_id": subject}, {"$set": {"display_name": self.planted, "bio": self.planted}})
        app["ai_content"].update_many({"payload.user_id": subject}, {"$set": {"payload.prompt": self.planted}})
        app["security_events"].update_many({"details.user_id": subject}, {"$set": {"details.note": self.planted}})

    def send(self, task: str, queue: str, *args: Any, shadow: str | None = None, **kwargs: Any) -> None:
        """Send a message as another service does, with its values shown wherever its client shows them."""
        with Celery("somebody-else", broker=self.system.environ["REDIS_URL"], set_as_current=False) as app:
            sent = app.send_task(task, args=args, kwargs=kwargs, queue=queue, shadow=shadow)
        self.tasks.append(sent.id)

    def send_wrong(self, subject: ObjectId) -> None:
        """Send the value in every place of a message where it does not belong."""
        person, value, address = str(subject), self.sent, f"{self.sent}@example.org"
        self.send(ERASURE, "compliance.erasure", value, address)
        self.send(ERASURE, "compliance.erasure", subject_id=address)
        self.send(ERASURE, "compliance.erasure", subject_id={"email": address})
        self.send(ERASURE, "compliance.erasure", subject_id=person, **{address: value})
        self.send(ERASURE, "compliance.erasure", subject_id=person, note=value)
        self.send(ERASURE, "compliance.erasure", subject_id=person, request_id=address)
        self.send(ERASURE, "compliance.erasure", subject_id=person, request_id=[value])
        self.send(ERASURE, "compliance.erasure", subject_id=person, deadline=value, shadow=value)
        self.send(BULK, "compliance.bulk", collection=f"{value}!", package=f"../{value}")
        self.send(BULK, "compliance.bulk", collection="users", priority=value)
        self.send("compliance.health.check", "compliance.health", checks=[value], cause=value)
        self.send("compliance.nothing", "compliance.health", value, name=value)
        self.send("compliance.jobs.sweep", "compliance.health", value, **{value: address})
        fields = ("event_id", "subject_id", "type", "granted", "occurred_at", "notice")
        self.send(CONSENT, "compliance.consent", **dict.fromkeys(fields, address))


@pytest.fixture
def canary(system: System) -> Canary:
    """A system in whose database two people and a counter have the planted value."""
    canary, deployment = Canary(system), system.deployment
    for subject in system.seeded.subjects[:2]:
        canary.plant(subject)
    address = f"{canary.planted}@example.org"
    deployment.admin.app["newsletter"].insert_one({"to": address, "person": system.seeded.subjects[1]})
    allow_counting(deployment)
    add_counters(deployment, "quoted")
    deployment.admin.app[COUNTERS].update_one({"_id": "quoted"}, {"$set": {"label": canary.planted}})
    return canary


@pytest.fixture
def metrics_port(system: System) -> Iterator[int]:
    """All processes, of which the worker knows a job that fails with what it reads."""
    port = pick_port(None)
    environ = {
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        "COMPLIANCE_METRICS_PORT": str(port),
        "COMPLIANCE_TRANSFER_DIR": str(system.deployment.services().transfer_dir),
    }
    command = [sys.executable, "-m", "celery", "-A", "storm_app", "worker", "--concurrency=2", "--without-mingle"]
    system.start("beat", "watcher", "flower")
    with supervised([Supervised("worker", command, system.environ | environ, system.home / "worker.log")]):
        system.wait_for(system.flower_tasks, "Flower serves")
        yield port


@contextmanager
def outage(system: System) -> Iterator[None]:
    """MongoDB gives the worker no answer that it could work with: every message is tried again later."""
    command = system.deployment.admin.client.admin.command
    names = ["find", "findAndModify", "insert", "update", "aggregate"]
    data = {"appName": Role.WORKER.value, "failCommands": names, "errorCode": 43}
    command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        command({"configureFailPoint": "failCommand", "mode": "off"})


def import_a_second(system: System, canary: Canary) -> None:
    """Import a person with the address of another one: the server's refusal quotes it."""
    package = exported(system.deployment, "users", "p-1")
    stranger = {"_id": {"$oid": str(ObjectId())}}
    found = [json.loads(line) for line in (package / "users.ndjson").read_bytes().splitlines()]
    double = next(user for user in found if canary.planted in user["email"]) | stranger
    rewrite(package, lambda _: [json.dumps(double).encode() + b"\n"], "users")
    canary.send("compliance.import.run", "compliance.bulk", package="p-1", collection="users", request_id="double")


def refused(system: System) -> int:
    return system.deployment.admin.compliance["jobs"].count_documents({"refused": True})


def test_a_planted_value_is_found_nowhere_but_in_the_application_database(
    system: System, canary: Canary, metrics_port: int
) -> None:
    erased, parked = system.seeded.subjects[:2]
    import_a_second(system, canary)
    with outage(system):
        canary.send_wrong(erased)
        canary.send(ERASURE, "compliance.erasure", subject_id=str(erased), request_id="erased")
        canary.send(ERASURE, "compliance.erasure", subject_id=str(parked), request_id="parked")
        canary.send(QUOTING.task, QUEUE, counter="quoted", request_id="quoted")
        system.wait_for(lambda: '"eta"' in places.scheduled(system), "some are tried again")
        seen = {"inspect during the outage": places.inspected(system, canary.tasks)}
    wait_for_states(system, double="parked", erased="done", parked="parked", quoted="parked")
    system.wait_for(lambda: refused(system) == WRONG, "wrong messages are refused", timeout=120)
    system.wait_for(lambda: canary.sent not in places.broker(system), "the broker has handed out everything")
    seen |= everywhere(system, canary, metrics_port)
    written = places.append_only_file(system)
    known = {canary.planted}.union(
        *(oracle.personal_values(system.seeded.documents, subject) for subject in (erased, parked))
    )
    leaks = {place: [value for value in {canary.sent, *known} if value in text] for place, text in seen.items()}

    assert all(seen.values()), {place: len(text) for place, text in seen.items()}
    assert [name for name in ("ErasureIncomplete", "ValueError") if name not in seen["sentry"]] == []
    assert canary.sent in written, "a value that is there is not seen"
    assert {place: found for place, found in leaks.items() if found} == {}
    assert [value for value in known if value in written] == []


def wait_for_states(system: System, **states: str) -> None:
    for request_id, state in states.items():
        system.wait_for(
            lambda id_=request_id, state=state: system.job(id_).get("state") == state,
            f"{request_id} is {state}",
            timeout=120,
        )


def everywhere(system: System, canary: Canary, metrics_port: int) -> dict[str, str]:
    """What can be read of the system, and what it keeps."""
    with urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    return {
        "inspect": places.inspected(system, canary.tasks),
        "flower": places.flower_pages(system),
        "metrics": metrics,
        "sentry": places.envelopes(system),
        "logs": places.logs(system),
        "audit log": places.audit_log(system),
        "our own collections": places.own_collections(system),
        "compliance jobs": system.compliance("jobs", "list", "--json"),
        "broker": places.broker(system),
    }
