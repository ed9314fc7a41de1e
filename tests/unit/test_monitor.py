"""Sentry is told of the runs of schedules that it can watch, and of nothing else."""

from datetime import UTC, datetime
from typing import Any

import pytest

from compliance.jobs.job import Job, RequestId, State
from compliance.settings import Settings
from worker.monitor import config_of, monitor_of
from worker.schedule import Schedule, load_schedules

SCHEDULES = load_schedules(Settings().schedules)


def a_job(request_id: str, origin: str = "schedule") -> Job:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    job_id = RequestId(request_id)
    return Job(request_id=job_id, kind="audit.verify", payload={}, state=State.RUNNING, created_at=now, origin=origin)


def a_schedule(**when: Any) -> Schedule:
    given = {"name": "x", "description": "A test.", "task": "compliance.audit.verify"}
    return Schedule.model_validate(given | when)


def test_every_schedule_of_the_package_is_watched() -> None:
    for schedule in SCHEDULES:
        monitor = monitor_of(a_job(f"schedule:{schedule.name}:2026-03-31T03:30:00Z"), SCHEDULES)
        assert monitor is not None
        assert monitor.name == schedule.name


def test_each_slot_is_one_run_whatever_attempt_asks() -> None:
    first, again, second = (
        monitor_of(a_job(f"schedule:nightly-audit:2026-03-{day}T03:30:00Z"), SCHEDULES) for day in (30, 30, 31)
    )

    assert first == again
    assert first is not None
    assert second is not None
    assert first.run != second.run
    assert len(first.run) == 32


@pytest.mark.parametrize(
    ("request_id", "origin"),
    [
        ("schedule:nightly-audit:2026-03-31T03:30:00Z", "celery"),
        ("schedule:unknown:2026-03-31T03:30:00Z", "schedule"),
        ("nightly-audit", "schedule"),
        ("schedule:nightly-audit:", "schedule"),
    ],
)
def test_what_no_schedule_asked_for_is_not_watched(request_id: str, origin: str) -> None:
    assert monitor_of(a_job(request_id, origin), SCHEDULES) is None


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"cron": "0 3 * * *"}, {"schedule": {"type": "crontab", "value": "0 3 * * *"}, "timezone": "UTC"}),
        (
            {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
            {"schedule": {"type": "crontab", "value": "0 3 * * *"}, "timezone": "Europe/Berlin"},
        ),
        ({"every": {"hours": 2}}, {"schedule": {"type": "interval", "value": 2, "unit": "hour"}, "timezone": "UTC"}),
        (
            {"every": {"seconds": 300}},
            {"schedule": {"type": "interval", "value": 5, "unit": "minute"}, "timezone": "UTC"},
        ),
        ({"every": {"seconds": 90}}, None),
        ({"every": {"seconds": 2}}, None),
    ],
)
def test_sentry_is_told_when_to_expect_a_run(when: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert config_of(a_schedule(**when)) == expected
