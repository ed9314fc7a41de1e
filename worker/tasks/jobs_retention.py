"""``compliance.jobs.retention``: remove finished jobs whose retention period is over, and what rehearsals left."""

from datetime import timedelta

import structlog

from compliance.errors import ConfigurationError
from compliance.jobs.retention import purge_jobs
from compliance.jobs.run import Run
from compliance.roles import Role
from migrations.rehearsal import sweep
from worker.job import ACTOR, Payload, job
from worker.services import Services

log = structlog.get_logger(__name__)


class PurgeJobs(Payload):
    """Nothing to choose: the retention period is a setting."""


@job("jobs.retention", PurgeJobs, queue="compliance.health")
def jobs_retention(payload: PurgeJobs, run: Run, services: Services) -> None:
    """Remove what is older than the setting says, batch by batch."""
    del payload
    settings = services.settings
    _sweep(services)
    older_than = timedelta(days=settings.job_retention_days)
    purge_jobs(run, older_than=older_than, batch_docs=settings.batch_docs, actor=ACTOR)


def _sweep(services: Services) -> None:
    """Drop a copy of the database that a rehearsal left behind when it was killed."""
    try:
        databases = services.connect_as(Role.MIGRATOR)
        with databases.client:
            if sweep(databases, clock=services.clock, length=services.lease):
                log.info("rehearsal.swept")
    except ConfigurationError:
        log.warning("rehearsal.not_swept")  # this worker has no user that may; the next rehearsal drops it
