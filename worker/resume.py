"""The sweep: rings again for every job that could run and nobody works on, and asks for what the schedules say.

What a lost message, an emptied broker, a killed worker or a beat that was away leaves behind is found here. Beat sends
nothing else.
"""

from datetime import timedelta
from typing import Any

import structlog

from worker.due import request_due
from worker.schedule import load_schedules
from worker.services import Services
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

TASK = "compliance.jobs.sweep"
SWEEP_QUEUE = "compliance.health"
LIMIT = 500
AGAIN_AFTER = timedelta(seconds=60)


def beat_schedule(sweep_interval: timedelta) -> dict[str, dict[str, Any]]:
    """Return the schedule of Celery beat; what a schedule asks for is decided by the sweep, not by beat."""
    return {
        # Expires, so that a broker that was away does not hand out a pile of old sweeps.
        "sweep": {
            "task": TASK,
            "schedule": sweep_interval,
            "options": {"queue": SWEEP_QUEUE, "expires": sweep_interval.total_seconds() * 4},
        },
    }


def sweep(services: Services) -> int:
    """Publish what is due; return how many jobs.

    The schedules come second: a fault of theirs must not keep back a job that is recorded.
    """
    due = services.ledger.take_due(limit=LIMIT, again_after=AGAIN_AFTER)
    for job in due:
        services.publish(job)
    metrics.SWEEPS.inc()
    metrics.SWEPT.inc(by=len(due))
    requested = request_due(load_schedules(services.settings.schedules), services)
    for job in requested:
        services.publish(job)
    if due or requested:
        log.info("jobs.swept", jobs=len(due), requested=len(requested))
    return len(due) + len(requested)
