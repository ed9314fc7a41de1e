"""What commands share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from compliance.jobs.job import Job, RequestId, State
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.cli import Runtime
from worker.services import Publish, Services

THREADS = 8


@pytest.fixture
def job(moment: Any) -> Job:
    return Job(request_id=RequestId("r-1"), kind="audit.verify", payload={}, state=State.QUEUED, created_at=moment)


class Bells:
    """Makes doorbells, and counts them and what is published.

    Whoever makes one waits a moment for somebody else to do the same, so that two at once are seen.
    """

    def __init__(self) -> None:
        self.made = 0
        self.published: list[Job] = []
        self._at_once = Barrier(2)

    def __call__(self, _: Addresses) -> Publish:
        self.made += 1
        with suppress(BrokenBarrierError):
            self._at_once.wait(0.3)
        return self.published.append


@pytest.fixture
def bells() -> Bells:
    return Bells()


@pytest.fixture
def services(bells: Bells) -> Iterator[Services]:
    settings = Settings.model_validate(
        {
            "MONGODB_URI": "mongodb://127.0.0.1:1/?replicaSet=rs0",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "COMPLIANCE_WRITER_KEY": "k" * 40,
        }
    )
    runtime = Runtime(load=lambda _: settings, doorbell=bells, environ={})
    with runtime.services() as services:
        yield services


def test_many_jobs_are_published_through_one_doorbell(services: Services, bells: Bells, job: Job) -> None:
    """An application connects signals and holds connections: one for each job would be a leak."""
    assert bells.made == 0
    for _ in range(1000):
        services.publish(job)

    assert (bells.made, len(bells.published)) == (1, 1000)


def test_threads_that_publish_at_once_share_one_doorbell(services: Services, bells: Bells, job: Job) -> None:
    together = Barrier(THREADS)

    def publish() -> None:
        together.wait(10)
        services.publish(job)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(publish) for _ in range(THREADS)]:
            done.result(10)

    assert (bells.made, len(bells.published)) == (1, THREADS)
