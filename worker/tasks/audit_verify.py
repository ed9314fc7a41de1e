"""``compliance.audit.verify``: recompute the whole sealed audit log."""

from compliance.audit.entry import Entry
from compliance.audit.verification import verify_log
from compliance.jobs.run import Outcome, Run
from worker.alert import alert_broken_log
from worker.job import ACTOR, Payload, job
from worker.services import Services

SHOWN = 100


class VerifyAuditLog(Payload):
    """Nothing to choose: the whole log."""


@job("audit.verify", VerifyAuditLog, queue="compliance.audit")
def audit_verify(payload: VerifyAuditLog, run: Run, services: Services) -> None:
    """Verify the log, record that it was verified, and tell the person on call what was found."""
    del payload
    report = verify_log(
        services.databases,
        services.trust,
        now=services.databases.server_time(),
        on_progress=lambda _done, _total: run.check(),
    )
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
    shown = [str(found) for found in report.findings[:SHOWN]]
    result = {"entries": report.entries, "found": len(report.findings), "findings": shown}
    run.commit(lambda _: Outcome(entries=(entry,), result=result))
    if not report.is_ok:
        faults = (found.fault.value for found in report.findings)
        alert_broken_log(faults, findings=len(report.findings), request_id=run.job.request_id)
