"""What the durable job costs: ``python -m bench.jobs`` (``--help`` for sizes).

1. Jobs per second of a consent update, beside a bare Celery task with the same transaction.
2. Time from publishing a message to its effect, for the same two.
3. Recording, claiming, ringing and listing in a ledger of many finished jobs, beside one of few.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from bson import ObjectId
from celery import Celery

from bench.harness import Bench, Verdicts, alternate, median_ratio, open_bench, open_servers, seconds
from compliance.jobs.desk import Desk
from compliance.jobs.document import finished, new_document
from compliance.jobs.job import RequestId, State
from compliance.jobs.ledger import Ledger
from compliance.roles import Role
from worker.services import connect

QUEUE = "compliance.consent"
OURS, BARE = "compliance.consent.update", "compliance.bench.bare"
PEOPLE = 400
PATIENCE_SECONDS = 300
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)
FEW = 10_000
INSERT_AT_ONCE = 10_000
LEASE = timedelta(seconds=30)


@dataclass
class Sender:
    """Publishes consent updates as another service would, and sees their effects."""

    bench: Bench
    app: Celery
    people: Sequence[ObjectId]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def send(self, task: str) -> str:
        """Publish one event under a new id, and return the id."""
        number = next(self.numbers)
        event_id = f"e-{number}"
        values = {
            "request_id": event_id,
            "event_id": event_id,
            "subject_id": str(self.people[number % len(self.people)]),
            "type": "MARKETING",
            "granted": bool(number % 2),
            "occurred_at": (MOMENT + timedelta(seconds=number)).isoformat(),
        }
        self.app.send_task(task, kwargs=values, queue=QUEUE)
        return event_id

    def rate(self, task: str, jobs: int) -> float:
        """Publish *jobs* messages and return how many took effect per second."""
        events = self.bench.admin.compliance["consent_events"]
        before = events.estimated_document_count()

        def work() -> None:
            for _ in range(jobs):
                self.send(task)
            end = time.monotonic() + PATIENCE_SECONDS
            while events.estimated_document_count() < before + jobs:
                if time.monotonic() > end:
                    raise SystemExit(f"{task}: not done within {PATIENCE_SECONDS} s")
                time.sleep(0.01)

        return jobs / seconds(work)

    def latency(self, task: str, messages: int) -> float:
        """Publish one message at a time; return the median of the seconds until its effect was seen."""
        found = []
        with self.bench.admin.compliance["consent_events"].watch(max_await_time_ms=200) as changes:
            for _ in range(messages):
                began = time.perf_counter()
                event_id = self.send(task)
                while (change := changes.try_next()) is None or change["documentKey"]["_id"] != event_id:
                    if time.perf_counter() - began > PATIENCE_SECONDS:
                        raise SystemExit(f"{task}: not seen within {PATIENCE_SECONDS} s")
                found.append(time.perf_counter() - began)
        return statistics.median(found)


@contextmanager
def running_worker(bench: Bench) -> Iterator[None]:
    """Run one worker with two pool processes for the block."""
    command = [sys.executable, "-m", "celery", "-A", "bench.jobs_app", "worker", "--concurrency=2", "-Q", QUEUE]
    flags = ["--without-mingle", "--without-gossip", "--without-heartbeat"]
    with (bench.home / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags], env=os.environ | bench.environ(), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def compare_with_bare(bench: Bench, verdicts: Verdicts, *, jobs: int, messages: int, rounds: int) -> None:
    """Measure rate and latency of a small job beside a bare task."""
    people = [ObjectId() for _ in range(PEOPLE)]
    person = {"role": "listener", "status": "ACTIVE", "subscription_type": "FREE", "created_at": MOMENT}
    bench.admin.app["users"].insert_many(
        {"_id": id_, "email": f"p{number}@example.org", **person} for number, id_ in enumerate(people)
    )
    with ExitStack() as cleanup:
        app = Celery("somebody-else", broker=bench.environ()["REDIS_URL"], set_as_current=False)
        cleanup.callback(app.close)
        cleanup.enter_context(running_worker(bench))
        sender = Sender(bench, app, people)
        for task in (OURS, BARE):
            sender.rate(task, PEOPLE)  # the first of each person inserts; connections open
        rates = alternate(rounds, lambda: sender.rate(OURS, jobs), lambda: sender.rate(BARE, jobs))
        verdicts.say("jobs/s, ours and bare: " + ", ".join(f"{ours:.0f} {bare:.0f}" for ours, bare in rates))
        verdicts.at_least("jobs/s of a one-transaction job beside the bare transaction", median_ratio(rates), 0.6)
        waits = alternate(rounds, lambda: sender.latency(OURS, messages), lambda: sender.latency(BARE, messages))
        verdicts.say("p50 ms, ours and bare: " + ", ".join(f"{a * 1e3:.1f} {b * 1e3:.1f}" for a, b in waits))
        verdicts.at_most("p50 from publish to effect beside the bare transaction", median_ratio(waits), 2.0)


def fill(bench: Bench, jobs: int) -> None:
    """Insert *jobs* finished jobs."""
    collection = bench.admin.compliance["jobs"]
    for start in range(0, jobs, INSERT_AT_ONCE):
        documents = []
        for number in range(start, min(jobs, start + INSERT_AT_ONCE)):
            created = MOMENT + timedelta(seconds=number)
            document = new_document(
                RequestId(f"old-{number}"), kind="audit.verify", payload={}, origin="bench", now=created
            )
            documents.append(document | finished(State.DONE, now=created, result={"entries": 1}))
        collection.insert_many(documents, ordered=False)


class LedgerCosts:
    """The operations of a ledger that holds many finished jobs."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.ledger = Ledger(connect(bench.addresses, Role.WORKER, app_name="bench"))
        self.names = (RequestId(f"{name}-{number}") for number in itertools.count())

    def live(self) -> None:
        """Record, find, claim and hand back one job."""
        request_id = next(self.names)
        now = datetime.now(UTC)
        self.ledger.record(new_document(request_id, kind="health.check", payload={}, origin="bench", now=now))
        self.ledger.most_urgent("health.check", limit=20)
        claim = self.ledger.claim(request_id, owner="bench", lease=LEASE)
        if claim is None:
            raise SystemExit(f"{request_id} could not be claimed")
        done = finished(State.DONE, now=now, result={})
        self.ledger.databases.transact(lambda session: self.ledger.advance(claim, done, session=session))

    def sweep(self) -> None:
        """Ring for what is due: nothing."""
        self.ledger.take_due(limit=500, again_after=LEASE)

    def list(self) -> None:
        """List the newest jobs, and count the unfinished ones."""
        desk = Desk(self.ledger)
        list(desk.newest(limit=20))
        list(desk.newest(state=State.PARKED, limit=20))
        desk.stats(within=timedelta(minutes=1))


def compare_ledgers(few: Bench, many: Bench, verdicts: Verdicts, *, jobs: int, repeats: int) -> None:
    """Measure the operations of a ledger with *jobs* finished jobs beside one with ten thousand."""
    fill(few, FEW)
    verdicts.say(f"filling a ledger with {jobs:,} finished jobs took {seconds(lambda: fill(many, jobs)):.0f} s")
    small, large = LedgerCosts(few, "few"), LedgerCosts(many, "many")
    for name in ("live", "sweep", "list"):
        in_small, in_large = getattr(small, name), getattr(large, name)
        in_small(), in_large()
        pairs = alternate(repeats, partial(seconds, in_large), partial(seconds, in_small))
        medians = [statistics.median(side) * 1e3 for side in zip(*pairs, strict=True)]
        verdicts.say(f"{name}: {medians[0]:.2f} ms beside {jobs:,} jobs, {medians[1]:.2f} ms beside {FEW:,}")
        verdicts.at_most(f"{name}, {jobs:,} finished jobs beside {FEW:,}", medians[0] / medians[1], 1.3)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What the durable job costs.", allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=1000, help="messages per run")
    parser.add_argument("--messages", type=int, default=100, help="messages per run, one at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ledger", type=int, default=1_000_000, help="finished jobs in the large ledger")
    parser.add_argument("--repeats", type=int, default=300, help="operations on each ledger")
    options = parser.parse_args()
    verdicts = Verdicts()
    with open_servers() as stack:
        with open_bench(stack, "bench") as bench:
            compare_with_bare(bench, verdicts, jobs=options.jobs, messages=options.messages, rounds=options.rounds)
        with open_bench(stack, "few") as few, open_bench(stack, "many") as many:
            compare_ledgers(few, many, verdicts, jobs=options.ledger, repeats=options.repeats)
    verdicts.end()


if __name__ == "__main__":
    main()
