"""The sweeper: rings again for every job that could run and that nobody works on.

What a lost message, an emptied broker or a killed worker leaves behind is found here.
"""

from datetime import timedelta

import structlog

from worker.services import Services
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

TASK = "compliance.jobs.sweep"
LIMIT = 500
AGAIN_AFTER = timedelta(seconds=60)


def sweep(services: Services) -> int:
    """Publish what is due; return how many jobs."""
    due = services.ledger.take_due(limit=LIMIT, again_after=AGAIN_AFTER)
    for job in due:
        services.publish(job)
    metrics.SWEEPS.inc()
    metrics.SWEPT.inc(by=len(due))
    if due:
        log.info("jobs.swept", jobs=len(due))
    return len(due)
