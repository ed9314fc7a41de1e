"""What commands share."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from compliance.jobs.job import Job, RequestId, State
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.cli import Runtime
from worker.cli import runtime as module


@pytest.fixture
def job(moment: Any) -> Job:
    return Job(request_id=RequestId("r-1"), kind="audit.verify", payload={}, state=State.QUEUED, created_at=moment)


def test_many_jobs_are_published_through_one_application(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application connects signals and holds connections: one for each job would be a leak."""
    made: list[Celery] = []
    published: list[Job] = []

    def application(_: Addresses) -> Celery:
        made.append(Celery("test", set_as_current=False))
        return made[-1]

    def publisher(_: Celery) -> Callable[[Job], None]:
        return published.append

    monkeypatch.setattr(module, "publisher", publisher)
    settings = Settings.model_validate(
        {"MONGODB_URI": "mongodb://127.0.0.1:1/?replicaSet=rs0", "REDIS_URL": "redis://127.0.0.1:1/0"}
    )
    runtime = Runtime(load=lambda _: settings, application=application, environ={})
    with runtime.services() as services:
        assert made == []
        for _ in range(1000):
            services.publish(job)

    assert (len(made), len(published)) == (1, 1000)
