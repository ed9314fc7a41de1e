"""``compliance.audit.verify``: recompute the hash of every entry of the audit log."""

from compliance.audit.entry import Entry
from compliance.audit.verify import verify
from compliance.jobs.run import Outcome, Run
from worker.job import ACTOR, Payload, job
from worker.services import Services


class VerifyAuditLog(Payload):
    """Nothing to choose: the whole log."""


@job("audit.verify", VerifyAuditLog, queue="compliance.audit")
def audit_verify(payload: VerifyAuditLog, run: Run, services: Services) -> None:
    """Verify the log and record that it was verified."""
    del payload
    report = verify(services.log.all(), services.trust)
    entry = Entry(
        event=run.job.request_id,
        entity_type="database",
        entity_id=services.databases.audit.name,
        action="audit.verified",
        created_at=services.clock.now(),
        performed_by=ACTOR,
        outcome="success" if report.is_ok else "failure",
        request_id=run.job.request_id,
        details={"entries": report.entries, "findings": len(report.findings)},
    )
    result = {"entries": report.entries, "findings": list(report.findings[:100])}
    run.commit(lambda _: Outcome(entries=(entry,), result=result))
