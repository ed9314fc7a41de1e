"""A kind of work that must not be done twice: it counts, in batches, and nothing in its effect notices a repeat.

Only the fence keeps a second worker from counting again: the ids of its audit entries hold the fence too.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from deployment import Deployment, Stack, provision_database
from waiting import wait_until

from compliance.audit.entry import Entry
from compliance.audit.vocabulary import ACTIONS
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Session
from compliance.roles import Role, role_name
from worker.intake import Message, receive
from worker.job import ACTOR, JobKind, Payload
from worker.services import Services

COUNTERS = "counters"
ACTION = "count.counted"
ACTIONS.add(ACTION, "a test counted")
QUEUE = "compliance.audit"


class Count(Payload):
    """Which counter, and how often."""

    counter: str
    batches: int = 3


def count(payload: Count, run: Run, services: Services) -> None:
    """Add one to the counter in each batch."""
    for number in range(run.job.checkpoint.get("step", 0), payload.batches):
        _count_one(payload, run, services, number)


def _count_one(payload: Count, run: Run, services: Services, number: int) -> None:
    request_id, is_last = run.job.request_id, number == payload.batches - 1
    entry = Entry(
        event=f"{request_id}#{run.job.fence}#{number}",
        entity_type="counter",
        entity_id=payload.counter,
        action=ACTION,
        created_at=services.clock.now(),
        performed_by=ACTOR,
        request_id=request_id,
        details={"batch": number},
    )

    def effect(session: Session) -> Outcome:
        services.databases.app[COUNTERS].update_one(
            {"_id": payload.counter}, {"$inc": {"count": 1}, "$push": {"batches": number}}, session=session
        )
        result = {"batches": payload.batches} if is_last else None
        return Outcome(entries=(entry,), checkpoint={"step": number + 1}, result=result)

    run.commit(effect)


def die(payload: Count, run: Run, services: Services) -> None:
    """End the process that carries it out."""
    del payload, run, services
    os.kill(os.getpid(), signal.SIGKILL)


def quote(payload: Count, run: Run, services: Services) -> None:
    """Fail with a text that was read from the database."""
    del run
    found = services.databases.app[COUNTERS].find_one({"_id": payload.counter}) or {}
    raise ValueError(f"cannot count {found['label']}")


LEASED = JobKind(name="count.batches", payload=Count, queue=QUEUE, work=count)
SMALL = JobKind(name="count.once", payload=Count, queue=QUEUE, work=count, is_small=True)
POISONED = JobKind(name="count.poisoned", payload=Count, queue=QUEUE, work=die)
POISONED_SMALL = JobKind(name="count.poisoned_once", payload=Count, queue=QUEUE, work=die, is_small=True)
QUOTING = JobKind(name="count.quoting", payload=Count, queue=QUEUE, work=quote)
KINDS = {kind.name: kind for kind in (LEASED, SMALL)}
BATCHES = {LEASED.name: 3, SMALL.name: 1}


def message(kind: str, request_id: str, *, lane: int = 0, is_repeat: bool = False) -> Message:
    """Return a message that asks to count on the counter of the same name as the request.

    A message works on the most urgent job of its kind, so that each *lane* has kinds of its own.
    """
    return Message(
        kind=replace(KINDS[kind], name=f"{kind}.{lane}"),
        values={"counter": request_id, "batches": BATCHES[kind]},
        request_id=request_id,
        is_repeat=is_repeat,
    )


@contextmanager
def open_counting(stack: Stack) -> Iterator[Deployment]:
    """Make a migrated database with counters on *stack*; it is gone after the block."""
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        deployment.migrate()
        allow_counting(deployment)
        yield deployment


def allow_counting(deployment: Deployment) -> None:
    """Let the worker of *deployment* write counters."""
    deployment.admin.app.create_collection(COUNTERS)
    deployment.admin.client.admin.command(
        "grantPrivilegesToRole",
        role_name(Role.WORKER, deployment.name),
        privileges=[{"resource": {"db": deployment.name, "collection": COUNTERS}, "actions": ["update"]}],
    )


def add_counters(deployment: Deployment, *names: str) -> None:
    """Make counters that stand at nothing."""
    deployment.admin.app[COUNTERS].insert_many([{"_id": name, "count": 0, "batches": []} for name in names])


def finish(
    deployment: Deployment,
    kind: str,
    request_id: str,
    *,
    lane: int = 0,
    timeout: float = 60,
    forgiven: tuple[type[Exception], ...] = (),
) -> None:
    """Let a successor take the message again until the job is done; errors that are *forgiven* are met by one more."""
    again = message(kind, request_id, lane=lane, is_repeat=True)

    def is_done() -> bool:
        with suppress(*forgiven):
            receive(again, services=deployment.services())
        return bool(counted(deployment, request_id)["state"] == "done")

    wait_until(is_done, timeout=timeout, what="a successor finishes the job")


def assert_counted_once(deployment: Deployment, kind: str, request_id: str) -> None:
    """Fail unless the job of *request_id* left behind what one execution does."""
    assert counted(deployment, request_id) == counted_once(BATCHES[kind]), request_id


def counted(deployment: Deployment, request_id: str) -> dict[str, Any]:
    """What the job of *request_id*, whose counter has the same name, left behind."""
    counter = deployment.admin.app[COUNTERS].find_one({"_id": request_id}) or {}
    entries = list(deployment.admin.audit["audit_log"].find({"request_id": request_id}))
    job = deployment.admin.compliance["jobs"].find_one({"_id": request_id}) or {}
    return {
        "state": job.get("state"),
        "count": counter["count"],
        "batches": counter["batches"],
        "entries": sorted((entry["action"], entry["details"].get("batch")) for entry in entries),
    }


def counted_once(batches: int) -> dict[str, Any]:
    """What exactly one execution leaves behind."""
    return {
        "state": "done",
        "count": batches,
        "batches": list(range(batches)),
        "entries": [(ACTION, number) for number in range(batches)],
    }
