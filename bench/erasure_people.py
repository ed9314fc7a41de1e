"""The people that erasures are measured on: how many documents each has, and what is left of them.

Every person has the same number of events in ``analytics``, about 300 bytes each, and the document in ``users``. Others
have as many, so that a collection never consists of those who are erased.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from bson import ObjectId

from bench.harness import Bench, open_bench, open_servers
from compliance.jobs.job import Job, RequestId, State
from compliance.mongo import Document
from compliance.roles import Role
from worker.attempt import carry_out
from worker.intake import submit
from worker.services import Services, build_services
from worker.tasks import JOBS

EVENTS, PEOPLE = "analytics", "users"
FILLING = "x" * 170
INSERT_AT_ONCE = 10_000
CACHE_MB, OPLOG_MB = 2048, 8192.0  # the servers of a demonstration have less than one round writes
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class People:
    """An application database with people in it, and a worker in this process."""

    bench: Bench
    services: Services
    _numbers: Iterator[int] = field(default_factory=count, init=False)

    def add(self, people: int, documents: int) -> list[ObjectId]:
        """Add so many people with so many events each, those of one person not side by side; return their ids."""
        added = [ObjectId() for _ in range(people)]
        app = self.bench.admin.app
        for some in _in_parts([_person(id_, next(self._numbers)) for id_ in added]):
            app[PEOPLE].insert_many(some, ordered=False)
        for some in _in_parts(range(people * documents)):
            app[EVENTS].insert_many((_event(added[number % people], number) for number in some), ordered=False)
        return added

    def erase(self, person: ObjectId) -> None:
        """Erase one person as a worker does, from the claim of the job to its end."""
        self.carry_out("erasure.request", {"subject_id": str(person)})

    def carry_out(self, kind: str, values: dict[str, Any]) -> Job:
        """Record a job and carry it out in this process.

        Raises:
            SystemExit: When it is not done then.
        """
        request_id = RequestId(f"bench-{next(self._numbers)}")
        submit(JOBS[kind], values, request_id=request_id, origin="bench", services=self.services)
        carry_out(JOBS[kind], request_id, services=self.services, on_progress=lambda _: None)
        job = self.services.ledger.find(request_id)
        if job is None or job.state is not State.DONE:
            raise SystemExit(f"{kind}: {job.state.value if job else 'lost'} {job.error if job else ''}")
        return job

    def rest(self) -> None:
        """Let the server write what the last contender left in its cache, so that the next one does not."""
        self.bench.admin.client.admin.command("fsync")

    def check_gone(self, people: Sequence[ObjectId]) -> None:
        """Return if nothing is left of *people*."""
        app, mine = self.bench.admin.app, {"$in": list(people)}
        left = app[EVENTS].count_documents({"user_id": mine}) + app[PEOPLE].count_documents({"_id": mine})
        if left:
            raise SystemExit(f"{left} documents are left of people who were erased")


def delete_by_id(people: People, person: ObjectId) -> None:
    """Delete all events of a person by ``_id`` in batches as large as ours: no plan, no trail, no second look."""
    app, batch = people.bench.admin.app, people.services.settings.batch_docs
    found = app[EVENTS].find({"user_id": person}, {"_id": 1}, batch_size=batch)
    for some in _in_parts([one["_id"] for one in found], batch):
        app[EVENTS].delete_many({"_id": {"$in": list(some)}})
    app[PEOPLE].delete_one({"_id": person})


def delete_row_by_row(people: People, person: ObjectId, rows: int) -> None:
    """Delete *rows* of a person as engines do that go row by row: one statement each."""
    app = people.bench.admin.app
    for one in list(app[EVENTS].find({"user_id": person}, {"_id": 1}).limit(rows)):
        app[EVENTS].delete_one({"_id": one["_id"]})


@contextmanager
def open_people() -> Iterator[People]:
    """Run servers with a migrated database for the block."""
    with ExitStack() as cleanup:
        bench = cleanup.enter_context(open_bench(cleanup.enter_context(open_servers()), "bench"))
        _grow(bench)
        yield cleanup.enter_context(_at_work(bench))


@contextmanager
def _at_work(bench: Bench) -> Iterator[People]:
    services = build_services(bench.addresses, Role.WORKER, publish=lambda _: None)
    with services.databases.client:
        yield People(bench=bench, services=services)


def _grow(bench: Bench) -> None:
    client = bench.admin.client.admin
    client.command({"setParameter": 1, "wiredTigerEngineRuntimeConfig": f"cache_size={CACHE_MB}MB"})
    client.command({"replSetResizeOplog": 1, "size": OPLOG_MB})


def _person(id_: ObjectId, number: int) -> Document:
    known = {"role": "listener", "status": "ACTIVE", "subscription_type": "FREE", "created_at": MOMENT}
    return {"_id": id_, "email": f"p{number}@example.org", **known}


def _event(person: ObjectId, number: int) -> Document:
    return {
        "user_id": person,
        "event_type": "play",
        "payload": {"track": ObjectId(), "number": number, "filling": FILLING},
        "timestamp": MOMENT,
    }


def _in_parts(items: Sequence[Any], size: int = INSERT_AT_ONCE) -> Iterator[Sequence[Any]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
