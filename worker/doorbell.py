"""The doorbell: a message that says that a job is in the ledger, and shows nothing of it."""

from collections.abc import Callable

import structlog
from celery import Celery

from compliance.jobs.job import Job
from worker.tasks import JOBS
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

HIDDEN = "<hidden>"  # shown in place of arguments
RECORDED = (
    "compliance_recorded"  # header of a message whose job is in the ledger; who sets it without one gains nothing
)


def publisher(app: Celery) -> Callable[[Job], None]:
    """Return a function that rings the doorbell for a job; it never raises, for the sweeper rings again."""

    def publish(job: Job) -> None:
        kind = JOBS[job.kind]
        try:
            app.send_task(
                kind.task,
                kwargs={**job.payload, "request_id": job.request_id},
                queue=kind.queue,
                argsrepr=HIDDEN,
                kwargsrepr=HIDDEN,
                headers={RECORDED: True},
                retry=False,
            )
        except Exception as error:  # noqa: BLE001 - any error of the broker's client
            metrics.UNPUBLISHED.inc(job.kind)
            log.warning("job.not_published", request_id=job.request_id, error=type(error).__name__)

    return publish
