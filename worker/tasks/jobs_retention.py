"""``compliance.jobs.retention``: remove finished jobs whose retention period is over."""

from datetime import timedelta

from compliance.jobs.retention import purge_jobs
from compliance.jobs.run import Run
from worker.job import ACTOR, Payload, job
from worker.services import Services


class PurgeJobs(Payload):
    """Nothing to choose: the retention period is a setting."""


@job("jobs.retention", PurgeJobs, queue="compliance.health")
def jobs_retention(payload: PurgeJobs, run: Run, services: Services) -> None:
    """Remove what is older than the setting says, batch by batch."""
    del payload
    settings = services.settings
    older_than = timedelta(days=settings.job_retention_days)
    purge_jobs(run, older_than=older_than, batch_docs=settings.batch_docs, actor=ACTOR)
