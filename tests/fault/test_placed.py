"""Faults of other kinds: many equal messages, wrong clocks, commits without a result, a job that kills its workers."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from counting import (
    BATCHES,
    KINDS,
    LEASED,
    POISONED,
    POISONED_SMALL,
    QUEUE,
    add_counters,
    allow_counting,
    counted,
    counted_once,
    message,
)
from deployment import Deployment
from parameters import impatient
from supervisor import crew_of, supervised
from waiting import wait_until

from compliance import mongo
from compliance.jobs.job import RequestId
from compliance.roles import Role
from worker.intake import admit, receive, record
from worker.resume import sweep
from worker.services import Services

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def counting(deployment: Deployment) -> Iterator[Deployment]:
    """A database with counters, where a transaction that nobody ends is soon given up."""
    allow_counting(deployment)
    with impatient(deployment):
        yield deployment


@pytest.mark.parametrize("kind", list(KINDS))
def test_fifty_equal_messages_at_once_are_one_effect(counting: Deployment, kind: str) -> None:
    add_counters(counting, "r-1")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: receive(message(kind, "r-1"), services=counting.services()), range(50)))

    assert counted(counting, "r-1") == counted_once(BATCHES[kind])


class Wrong:
    """A clock that is *minutes* ahead."""

    def __init__(self, services: Services, minutes: int) -> None:
        self._right = services.clock
        self._ahead = timedelta(minutes=minutes)

    def now(self) -> datetime:
        return self._right.now() + self._ahead

    def sleep(self, duration: timedelta) -> None:
        self._right.sleep(duration)


@pytest.mark.parametrize("minutes", [5, -5])
def test_a_worker_with_a_wrong_clock_takes_nothing_early_and_loses_nothing(counting: Deployment, minutes: int) -> None:
    """Of the right one and the wrong one, each holds a job while the other one looks for work."""
    add_counters(counting, "r-1", "r-2")
    right = counting.services()
    wrong = replace(right, clock=Wrong(right, minutes))
    fences: list[int] = []
    swept: list[int] = []

    for request_id, worker, other in (("r-1", right, wrong), ("r-2", wrong, right)):

        def look(_: Mapping[str, Any], request_id: str = request_id, other: Services = other) -> None:
            receive(message(LEASED.name, request_id, is_repeat=True), services=other)
            swept.append(sweep(other))
            job = other.ledger.find(request_id)
            fences.append(job.fence if job else 0)

        receive(message(LEASED.name, request_id), services=worker, on_progress=look)

    assert counted(counting, "r-1") == counted(counting, "r-2") == counted_once(BATCHES[LEASED.name])
    assert fences == [1] * 6
    assert swept == [0] * 6


def vanish(services: Services, request_id: str, pause: timedelta) -> None:
    """Claim a job for *pause*, and do nothing."""
    assert services.ledger.claim(RequestId(request_id), owner="vanished", lease=pause) is not None


def fail(services: Services, request_id: str, pause: timedelta) -> None:
    """Claim a job, and hand it back for another try after *pause*."""
    claim = services.ledger.claim(RequestId(request_id), owner="failed", lease=timedelta(minutes=1))
    assert claim is not None
    services.ledger.hand_back(claim, delay=pause)


@pytest.mark.parametrize("minutes", [5, -5])
@pytest.mark.parametrize(("leave", "state"), [(vanish, "running"), (fail, "queued")])
def test_a_worker_with_a_wrong_clock_goes_on_with_a_job_by_the_clock_of_the_server(
    counting: Deployment, leave: Callable[[Services, str, timedelta], None], state: str, minutes: int
) -> None:
    add_counters(counting, "early", "due")
    right = counting.services()
    wrong = replace(right, clock=Wrong(right, minutes))
    for request_id, pause in (("early", timedelta(minutes=2)), ("due", timedelta(milliseconds=300))):
        record(admit(message(LEASED.name, request_id), right), right)
        leave(wrong, request_id, pause)

    def is_done() -> bool:
        for request_id in ("early", "due"):
            receive(message(LEASED.name, request_id, is_repeat=True), services=wrong)
        return bool(counted(counting, "due")["state"] == "done")

    wait_until(is_done, timeout=30, what="it goes on with the one that is due")

    assert counted(counting, "due") == counted_once(BATCHES[LEASED.name])
    assert (counted(counting, "early")["state"], counted(counting, "early")["count"]) == (state, 0)
    assert sweep(wrong) == 0


UNKNOWN: dict[str, dict[str, Any]] = {
    "the others are slow": {"writeConcernError": {"code": 64, "errmsg": "", "errInfo": {"wtimeout": True}}},
    "no answer": {"closeConnection": True},
}
OUT_OF_TIME: dict[str, dict[str, Any]] = {**UNKNOWN, "it took too long": {"errorCode": 50}}


@pytest.mark.parametrize("why", list(UNKNOWN))
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_commit_whose_result_is_unknown_is_asked_for_again(counting: Deployment, kind: str, why: str) -> None:
    add_counters(counting, "r-1")
    with failing(counting, {"times": 3}, failCommands=["commitTransaction"], **UNKNOWN[why]):
        receive(message(kind, "r-1"), services=counting.services())

    assert counted(counting, "r-1") == counted_once(BATCHES[kind])


@pytest.mark.parametrize("why", list(OUT_OF_TIME))
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_commit_that_stays_unknown_is_settled_by_another_attempt(
    counting: Deployment, monkeypatch: pytest.MonkeyPatch, kind: str, why: str
) -> None:
    """Nobody guesses: whether it was committed or not is what the next attempt finds."""
    monkeypatch.setattr(mongo, "TRANSACTION_LIMIT", timedelta(seconds=1))
    add_counters(counting, "r-1")
    with failing(counting, "alwaysOn", failCommands=["commitTransaction"], **OUT_OF_TIME[why]):
        receive(message(kind, "r-1"), services=counting.services())

    def is_done() -> bool:
        receive(message(kind, "r-1"), services=counting.services())
        return bool(counted(counting, "r-1")["state"] == "done")

    wait_until(is_done, timeout=60, what="another attempt goes on")

    assert counted(counting, "r-1") == counted_once(BATCHES[kind])


@contextmanager
def failing(counting: Deployment, mode: Any, **data: Any) -> Iterator[None]:
    """Let the server answer the worker of *counting* as *data* says."""
    command = counting.admin.client.admin.command
    command({"configureFailPoint": "failCommand", "mode": mode, "data": {"appName": Role.WORKER.value, **data}})
    try:
        yield
    finally:
        command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.parametrize("kind", [POISONED.name, pytest.param(POISONED_SMALL.name, marks=pytest.mark.storm)])
def test_a_job_that_kills_its_workers_is_parked_and_others_go_on(
    counting: Deployment, tmp_path: Path, kind: str
) -> None:
    others = [f"r-{number}" for number in range(20)]
    add_counters(counting, *others)
    broker = counting.stack.endpoints.redis_url
    with (
        supervised(crew_of(counting, tmp_path, workers=1)),
        Celery("somebody-else", broker=broker, set_as_current=False) as app,
    ):
        app.send_task(f"compliance.{kind}", kwargs={"counter": "nowhere", "request_id": "poison"}, queue=QUEUE)
        for request_id in others:
            values = {"counter": request_id, "request_id": request_id}
            app.send_task(LEASED.task, kwargs=values, queue=QUEUE)
        jobs = counting.admin.compliance["jobs"]
        wait_until(
            lambda: jobs.count_documents({"state": "done", "_id": {"$in": others}}) == len(others),
            timeout=100,
            what="the others are done",
        )
        wait_until(
            lambda: (jobs.find_one({"_id": "poison"}) or {}).get("state") == "parked", timeout=150, what="it is parked"
        )
        poison = jobs.find_one({"_id": "poison"}) or {}

    assert poison["error"] == {"code": "JobKillsWorkers", "message": "2 workers in a row died of it"}
    assert [counted(counting, id_) for id_ in others] == [counted_once(BATCHES[LEASED.name])] * len(others)
    assert [entry["action"] for entry in counting.entries(request_id="poison")] == ["job.parked"]
