"""Minutes of random kills, sleeps and step-downs over the whole system, and then the account.

``STORM_SEED``, ``STORM_SECONDS`` and ``STORM_JOBS`` of the environment repeat a run or make it shorter.
"""

import os
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from counting import KINDS, add_counters, open_counting
from deployment import Deployment, Stack
from mixture import BATCH_DOCS, BATCHES, Mixture, Wish, expected_database, faults_in_entries, found_database, mix
from pymongo.errors import PyMongoError
from sealed import SealedLog
from supervisor import Nemesis, Supervised, crew_of, supervised
from waiting import wait_until

from compliance.mongo import open_client
from worker import desk
from worker.demo.seed import Seeded, insert, seed_documents
from worker.embedded import open_stack
from worker.intake import submit
from worker.tasks import JOBS

ENVIRON = os.environ  # noqa: TID251 - how long a storm lasts is said there
SEED = int(ENVIRON.get("STORM_SEED") or secrets.randbelow(1_000_000))
SECONDS = float(ENVIRON.get("STORM_SECONDS", "600"))
NUMBER = int(ENVIRON.get("STORM_JOBS", "5000"))
DRAIN_SECONDS = 600 + NUMBER / 2  # a busy machine carries out some jobs a second
UNACKNOWLEDGED_SECONDS = 40  # a message that met no database waits up to 30 s for its next try
Tell = Callable[[str], None]

pytestmark = [pytest.mark.storm, pytest.mark.timeout(SECONDS + 3 * DRAIN_SECONDS)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A replica set of three."""
    with open_stack(tmp_path_factory.mktemp("storm"), nodes=3) as running:
        yield running


@dataclass(slots=True)
class Senders:
    """Services that send every job of a mixture one to three times, one way or the other."""

    deployment: Deployment
    mixture: Mixture
    rng: random.Random
    acknowledged: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)

    def run(self, *, until: float) -> None:
        """Send everything, evenly until *until*."""
        copies = [wish for wish in self.mixture.wishes for _ in range(self.rng.randint(1, 3))]
        self.rng.shuffle(copies)
        pause = (until - time.monotonic()) / len(copies)
        with Celery("somebody-else", broker=self.deployment.stack.endpoints.redis_url, set_as_current=False) as app:
            app.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 5, "max_retries": 1}
            for number, wish in enumerate(copies, 1):
                self._send(wish, app)
                threading.Event().wait(max(0, until - pause * (len(copies) - number) - time.monotonic()))

    def _send(self, wish: Wish, app: Celery) -> None:
        way = self._send_message if self.rng.random() < 0.6 else self._submit
        try:
            way(wish, app)
        except Exception as error:  # noqa: BLE001 - whatever the client of a service meets
            self.failed[type(error).__name__] += 1

    def _send_message(self, wish: Wish, app: Celery) -> None:
        app.send_task(wish.task, kwargs={**wish.payload, "request_id": wish.request_id}, queue=wish.queue, retry=False)
        self.sent.add(wish.request_id)

    def _submit(self, wish: Wish, _app: Celery) -> None:
        kind = KINDS.get(wish.kind) or JOBS[wish.kind]
        submit(kind, wish.payload, request_id=wish.request_id, origin="test", services=self.deployment.services())
        self.acknowledged.add(wish.request_id)


@dataclass(slots=True)
class Account:
    """What is there when the storm is over."""

    deployment: Deployment
    mixture: Mixture

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {job["_id"]: job for job in self.deployment.admin.compliance["jobs"].find()}

    def drain(self) -> None:
        """Wait until all that was recorded has ended, and no message is left that a worker could still take."""
        since = time.monotonic()
        recorded = -1

        def is_over() -> bool:
            nonlocal since, recorded
            before = recorded
            try:
                recorded = self._recorded()
                is_moving = self._unfinished() or self._messages() or before != recorded
            except (PyMongoError, redis.RedisError):  # not quite healed yet
                is_moving = True
            if is_moving:
                since = time.monotonic()
                return False
            is_complete = recorded == len(self.mixture.wishes)
            return is_complete or time.monotonic() - since > UNACKNOWLEDGED_SECONDS

        wait_until(is_over, timeout=DRAIN_SECONDS, what="everything ended after the storm")

    def parked(self) -> dict[str, str]:
        """The jobs that wait for a person, with the reason."""
        return {id_: job["error"]["code"] for id_, job in self.jobs().items() if job["state"] == "parked"}

    def retry(self, request_ids: Iterable[str]) -> None:
        """Do what a person would do."""
        services = self.deployment.services()
        for request_id in request_ids:
            job = services.ledger.find(request_id)
            assert job is not None
            desk.retry(job, services, actor="test")

    def _recorded(self) -> int:
        ids = [wish.request_id for wish in self.mixture.wishes]
        return self.deployment.admin.compliance["jobs"].count_documents({"_id": {"$in": ids}})

    def _unfinished(self) -> int:
        return self.deployment.admin.compliance["jobs"].count_documents({"state": {"$in": ["queued", "running"]}})

    def _messages(self) -> int:
        with redis.Redis.from_url(self.deployment.stack.endpoints.redis_url) as broker:
            return sum(int(broker.llen(key)) for key in broker.scan_iter(_type="list"))

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in self.deployment.entries():
            found.setdefault(entry["request_id"], []).append(entry)
        return found


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Shows a line at once, whatever is captured."""

    def show(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    return show


@pytest.fixture
def filled(stack: Stack) -> Iterator[tuple[Deployment, Seeded]]:
    """A database with 300 people and counters."""
    with open_counting(stack) as deployment:
        seeded = seed_documents(SEED, people=300, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))
        insert(seeded, deployment.admin)
        yield deployment, seeded


def test_nothing_is_lost_and_nothing_is_done_twice(
    filled: tuple[Deployment, Seeded], tmp_path: Path, tell: Tell
) -> None:
    deployment, seeded = filled
    rng = random.Random(SEED)
    tell(f"storm with seed {SEED}: {SECONDS:.0f} s, {NUMBER} jobs")
    mixture = mix(rng, seeded, jobs=NUMBER, directory=tmp_path / "transfer")
    add_counters(deployment, *(wish.payload["counter"] for kind in BATCHES for wish in mixture.of(kind)))
    account, senders = Account(deployment, mixture), Senders(deployment, mixture, random.Random(SEED + 1))
    crew = crew_of(deployment, tmp_path, workers=4, beats=2, watchers=1, COMPLIANCE_BATCH_DOCS=str(BATCH_DOCS))
    with supervised(crew), nemesis_of(deployment, rng, crew) as nemesis:
        rage(nemesis, senders)
        tell(f"{nemesis.done.total()} faults: {dict(nemesis.done)}")
        account.drain()
        parked = account.parked()
        tell(f"parked: {parked}")
        account.retry(parked)
        account.drain()
    jobs = account.jobs()
    tell(f"jobs: {dict(Counter(job['state'] for job in jobs.values()))}")
    tell(f"zombies fenced: {sum(log.read_text().count('job.lease_lost') for log in tmp_path.glob('worker-*.log'))}")
    tell(f"senders met: {dict(senders.failed)}")
    tell(f"messages lost before a worker took them: {len(senders.sent - set(jobs))}\n")

    assert set(parked.values()) <= {"JobKillsWorkers"}
    check(account, senders)
    assert crashed(tmp_path) == []


def crashed(home: Path) -> list[str]:
    """What the logs of the workers call a bug."""
    logs = (log.read_text() for log in home.glob("worker-*.log"))
    return [line for text in logs for line in text.splitlines() if ".crashed" in line]


@contextmanager
def nemesis_of(deployment: Deployment, rng: random.Random, crew: Sequence[Supervised]) -> Iterator[Nemesis]:
    uri = deployment.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    with open_client(uri, app_name="nemesis", timeout=timedelta(seconds=5)) as client:
        yield Nemesis(rng, deployment.stack, client, crew)


def rage(nemesis: Nemesis, senders: Senders) -> None:
    """Let the storm rage while everything is sent; all is mended at the end."""
    until = time.monotonic() + SECONDS
    sending = threading.Thread(target=senders.run, kwargs={"until": until - SECONDS / 10})
    sending.start()
    try:
        while time.monotonic() < until:
            nemesis.strike()
            next_one = time.monotonic() + nemesis.rng.uniform(1, 3)
            while time.monotonic() < next_one:
                nemesis.mend()
                threading.Event().wait(0.2)
    finally:
        nemesis.mend(all_of_it=True)
        sending.join(60)


def check(account: Account, senders: Senders) -> None:
    deployment, mixture, jobs, entries = account.deployment, account.mixture, account.jobs(), account.entries()
    done = {id_ for id_, job in jobs.items() if job["state"] == "done"}
    finished = [wish for wish in mixture.wishes if wish.request_id in done]
    found = found_database(deployment.admin.app)
    expected = expected_database(mixture, deployment.services().data_map, done)

    assert senders.acknowledged <= set(jobs)
    assert {id_: (job["state"], job["error"]) for id_, job in jobs.items() if id_ not in done} == {}
    assert [id_ for id_, job in jobs.items() if job["lease"]] == []
    assert [fault for wish in finished for fault in faults_in_entries(wish, entries[wish.request_id])] == []
    assert {name for name in {*found, *expected} if found.get(name) != expected.get(name)} == set()
    check_erasures(deployment, [wish for wish in finished if wish.kind == "erasure.request"], entries)
    sealed = SealedLog(deployment, deployment.stack.home / "guard.json")
    sealed.seal_all()
    assert sealed.verify().findings == ()


def check_erasures(deployment: Deployment, erased: list[Wish], entries: dict[str, list[dict[str, Any]]]) -> None:
    requests = {it["_id"]: it for it in deployment.admin.compliance["erasure_requests"].find()}
    followed = Counter(
        job["payload"]["subject_id"]
        for job in deployment.admin.compliance["jobs"].find({"origin": "watcher"})
        if job["payload"].get("checks") == ["no_residual"]
    )
    for wish in erased:
        request = requests[wish.request_id]
        affected = sum(count for verbs in request["affected"].values() for count in verbs.values())
        recorded = sum(
            entry["details"]["documents"] for entry in entries[wish.request_id] if entry["action"] == "erasure.batch"
        )
        assert (request["state"], recorded) in {("completed", affected), ("completed_with_retention", affected)}
    assert followed == Counter(wish.payload["subject_id"] for wish in erased)
