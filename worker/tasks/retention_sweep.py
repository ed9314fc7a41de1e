"""``compliance.retention.sweep``: remove what no purpose of the data map needs any more."""

from collections.abc import Sequence

import structlog

from compliance.jobs.run import Run
from compliance.retention.sweep import sweep_retention
from worker.job import ACTOR, Payload, job
from worker.services import Services

log = structlog.get_logger(__name__)
LOCK = "retention"


class SweepRetention(Payload):
    """Nothing to choose: the data map says what is kept for how long."""

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let one sweep run at a time."""
        del subjects
        return (LOCK,)


@job("retention.sweep", SweepRetention, queue="compliance.bulk")
def retention_sweep(payload: SweepRetention, run: Run, services: Services) -> None:
    """Plan, then remove batch by batch (GDPR Art. 5(1)(e)); what should be looked at is told."""
    del payload
    problems = sweep_retention(
        run,
        databases=services.databases,
        data_map=services.data_map,
        pseudonyms=services.pseudonyms,
        batch_docs=services.settings.batch_docs,
        actor=ACTOR,
    )
    for problem in problems:
        log.warning("retention.problem", problem=problem, request_id=run.job.request_id)
