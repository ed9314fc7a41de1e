"""What beat asks for, and when (UTC)."""

from datetime import timedelta
from typing import Any

from celery.schedules import crontab

from worker.resume import TASK

SWEEP_QUEUE = "compliance.health"


def beat_schedule(sweep_interval: timedelta) -> dict[str, dict[str, Any]]:
    """Return the schedule of Celery beat."""
    return {
        # Expires, so that a broker that was away does not hand out a pile of old sweeps.
        "sweep": {
            "task": TASK,
            "schedule": sweep_interval,
            "options": {"queue": SWEEP_QUEUE, "expires": sweep_interval.total_seconds() * 4},
        },
        "nightly-health": {
            "task": "compliance.health.check",
            "schedule": crontab(hour="3", minute="0"),
            "kwargs": {"cause": "schedule"},
        },
        "nightly-audit": {"task": "compliance.audit.verify", "schedule": crontab(hour="3", minute="30")},
    }
