"""The sweep: rings again for every job that could run and nobody works on, and asks for what the schedules say.

What a lost message, an emptied broker, a killed worker or a beat that was away leaves behind is found here. Beat sends
nothing else. Erasures that waited for a legal hold to end, or for another data map, go on from here, too.
"""

from datetime import timedelta
from typing import Any

import structlog

from worker.due import request_due, take_turn
from worker.erasures import go_on_without_hold, try_with_other_map
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
        # Without an expiry, which would go by the clocks of two machines: an old message finds that another was faster.
        "sweep": {"task": TASK, "schedule": sweep_interval, "options": {"queue": SWEEP_QUEUE}},
    }


def sweep_in_turn(services: Services) -> int:
    """Sweep unless somebody did within half the interval: of the messages of many beats, or of a pile, one counts."""
    if not take_turn(services.databases, "sweep", every=services.settings.sweep_interval / 2):
        return 0
    return sweep(services)


def sweep(services: Services) -> int:
    """Publish what is due; return how many jobs.

    The rest comes second: a fault of it must not keep back a job that is recorded.
    """
    due = services.ledger.take_due(limit=LIMIT, again_after=AGAIN_AFTER)
    for job in due:
        services.publish(job)
    metrics.SWEEPS.inc()
    metrics.SWEPT.inc(by=len(due))
    again = [*go_on_without_hold(services), *try_with_other_map(services)]
    requested = again + request_due(load_schedules(services.settings.schedules), services)
    for job in requested:
        services.publish(job)
    if due or requested:
        log.info("jobs.swept", jobs=len(due), requested=len(requested))
    return len(due) + len(requested)
