"""The broker dies, forgets, remembers too much or stands still: every accepted job ends exactly once."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from consents import QUEUE, Consents
from deployment import Deployment
from system import System, filled_system

from worker.processes import Child

BATCH = 40


@pytest.fixture
def system(deployment: Deployment, tmp_path: Path) -> Iterator[System]:
    with redis.Redis.from_url(deployment.stack.endpoints.redis_url) as broker:
        broker.flushall()
    with filled_system(deployment, tmp_path) as running:
        yield running


def ids(count: int) -> list[str]:
    return [f"r-{number}" for number in range(count)]


def is_alive(worker: Child) -> bool:
    return worker.process.poll() is None


def waiting_messages(system: System) -> int:
    with redis.Redis.from_url(system.environ["REDIS_URL"]) as broker:
        return int(broker.llen(QUEUE)) + int(broker.hlen("unacked"))


@contextmanager
def killed_broker(system: System) -> Iterator[Path]:
    """Kill the broker, give the folder of its append-only file, and start it again."""
    valkey = system.deployment.stack.valkey
    valkey.kill()
    yield valkey.spec.directory / "appendonlydir"
    valkey.start()


def test_a_message_that_is_published_three_times_is_one_job(system: System) -> None:
    consents = Consents(system)
    consents.send(ids(20), times=3)
    system.start("worker")
    system.wait_for(lambda: waiting_messages(system) == 0, "all messages are taken")

    consents.assert_each_happened_once(ids(20))


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=[pytest.mark.storm, pytest.mark.timeout(600)])])
def test_a_worker_survives_a_broker_that_is_killed_again_and_again(system: System, rounds: int) -> None:
    consents = Consents(system)
    worker, _ = system.start("worker", "beat").children
    sent = ids(rounds * BATCH)
    for start in range(0, len(sent), BATCH):
        consents.send(sent[start : start + BATCH])
        system.wait_for(partial(consents.has_begun, sent[start : start + BATCH]), "the worker is at work")
        with killed_broker(system):
            pass
        assert is_alive(worker)
    consents.send(consents.missing(sent))  # what nobody had taken was the broker's alone
    system.wait_for(lambda: consents.ended(sent) == len(sent), "all are done", timeout=120)

    assert is_alive(worker)
    consents.assert_each_happened_once(sent)
    worker.process.terminate()
    assert worker.process.wait(20) == 0


def test_recorded_jobs_outlive_a_broker_that_comes_back_empty(system: System) -> None:
    subjects = {f"r-{number}": str(subject) for number, subject in enumerate(system.seeded.subjects[:3])}
    for request_id, subject in subjects.items():
        system.compliance("erasure", "request", subject, "--request-id", request_id)
    with killed_broker(system) as folder:
        shutil.rmtree(folder)
    system.start("worker", "beat")
    system.wait_for(
        lambda: all(system.job(request_id).get("state") == "done" for request_id in subjects), "all are done"
    )

    assert len(system.deployment.entries(action="erasure.completed")) == len(subjects)


def test_a_broker_that_comes_back_with_old_messages_repeats_nothing(system: System, tmp_path: Path) -> None:
    consents, old = Consents(system), tmp_path / "old"
    consents.send(ids(20))
    shutil.copytree(system.deployment.stack.valkey.spec.directory / "appendonlydir", old)
    worker, _ = system.start("worker", "beat").children
    system.wait_for(lambda: consents.ended(ids(20)) == 20, "all are done")
    with killed_broker(system) as folder:
        shutil.rmtree(folder)
        shutil.copytree(old, folder)
        before = len(worker.log.read_text())
    system.wait_for(
        lambda: "compliance.consent.update" in worker.log.read_text()[before:] and waiting_messages(system) == 0,
        "the old messages are taken again",
    )

    consents.assert_each_happened_once(ids(20))
    assert is_alive(worker)


@pytest.mark.parametrize("bells", [1, pytest.param(4, marks=[pytest.mark.storm, pytest.mark.timeout(300)])])
def test_a_broker_that_stands_still_delays_and_loses_nothing(system: System, bells: int) -> None:
    consents = Consents(system)
    recorded = [f"r-{number}" for number in range(bells)]
    worker, _ = system.start("worker", "beat").children
    consents.send(["before"])
    system.wait_for(lambda: consents.ended(["before"]) == 1, "the worker is at work")
    broker = system.deployment.stack.valkey.pid
    assert broker is not None
    os.kill(broker, signal.SIGSTOP)
    try:
        for number, request_id in enumerate(recorded):
            consents.grant(request_id, number)  # rings until it gives up
    finally:
        os.kill(broker, signal.SIGCONT)
    system.wait_for(lambda: consents.ended(recorded) == bells, "all are done", timeout=90)

    assert is_alive(worker)
    consents.assert_each_happened_once(["before", *recorded])
