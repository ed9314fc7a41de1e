"""``compliance.audit.heartbeat``: an entry that says that entries are written, so that silence means something."""

from compliance.audit.entry import Entry
from compliance.jobs.run import Outcome, Run
from worker.job import ACTOR, Payload, job
from worker.services import Services


class BeatAuditLog(Payload):
    """Nothing to choose."""


@job("audit.heartbeat", BeatAuditLog, queue="compliance.audit")
def audit_heartbeat(payload: BeatAuditLog, run: Run, services: Services) -> None:
    """Append the entry."""
    del payload
    entry = Entry(
        event=run.job.request_id,
        entity_type="database",
        entity_id=services.databases.audit.name,
        action="audit.heartbeat",
        created_at=services.clock.now(),
        performed_by=ACTOR,
        request_id=run.job.request_id,
    )
    run.commit(lambda _: Outcome(entries=(entry,), result={}))
