"""What beat asks for can be carried out, and a broker that was away hands out no pile of old sweeps."""

from datetime import timedelta

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st

from worker.job import parse
from worker.resume import TASK
from worker.routing import QUEUES
from worker.schedule import SWEEP_QUEUE, beat_schedule
from worker.tasks import JOBS

SCHEDULE = beat_schedule(timedelta(seconds=5))
KINDS = {kind.task: kind for kind in JOBS.values()}


@pytest.mark.parametrize("name", sorted(set(SCHEDULE) - {"sweep"}))
def test_every_entry_is_a_message_that_its_kind_takes(name: str) -> None:
    entry = SCHEDULE[name]

    assert parse(KINDS[entry["task"]], entry.get("kwargs", {}))
    assert isinstance(entry["schedule"], crontab)


@given(st.floats(0.1, 3600))
def test_a_sweep_expires_after_a_few_of_its_intervals(seconds: float) -> None:
    sweep = beat_schedule(timedelta(seconds=seconds))["sweep"]

    assert (sweep["task"], sweep["schedule"]) == (TASK, timedelta(seconds=seconds))
    assert sweep["options"]["queue"] == SWEEP_QUEUE
    assert seconds < sweep["options"]["expires"] <= 5 * seconds


def test_the_sweep_has_a_queue_that_is_read() -> None:
    assert SWEEP_QUEUE in QUEUES


def test_health_and_audit_are_looked_at_every_day() -> None:
    assert {entry["task"] for entry in SCHEDULE.values()} == {
        TASK,
        "compliance.health.check",
        "compliance.audit.verify",
    }
