"""What a person asks of a job, with its audit entry in the same transaction."""

from compliance.audit.entry import Cause
from compliance.jobs.desk import Desk
from compliance.jobs.job import Ask, Job
from compliance.mongo import Session
from worker.attempt import job_entry
from worker.job import JOBS
from worker.services import Services

DONE_ACTIONS = {Ask.CANCEL: "job.cancelled", Ask.PARK: "job.parked"}
ASKED_ACTIONS = {Ask.CANCEL: "job.cancel_requested", Ask.PARK: "job.park_requested"}


def retry(job: Job, services: Services, *, actor: str) -> None:
    """Queue a parked job again and ring for it; it goes on from its checkpoint.

    Raises:
        UnknownName: When it is not parked.
    """
    event = f"#retry#{job.fence}#{services.clock.now().isoformat()}"  # it may be parked again before it has run
    entry = job_entry(job.request_id, event, "job.retried", "success", None, services, actor=actor)

    def effect(session: Session) -> None:
        Desk(services.ledger).retry(job.request_id, session=session)
        services.log.caused_by(_by_person(job)).append(entry, session=session)

    services.databases.transact(effect)
    services.publish(job)


def ask(job: Job, what: Ask, services: Services, *, actor: str) -> bool:
    """Cancel or park a job; return whether that was done at once, else the worker hears it at its next batch.

    Raises:
        UnknownName: When it is finished.
    """
    now = services.clock.now()

    def effect(session: Session) -> bool:
        at_once = Desk(services.ledger).ask(job.request_id, what, now=now, session=session)
        action = (DONE_ACTIONS if at_once else ASKED_ACTIONS)[what]
        event = f"#{what.value}#{job.fence}#{now.isoformat()}"
        if at_once and what is Ask.CANCEL:
            JOBS[job.kind].on_cancel(job, services, session)
        entry = job_entry(job.request_id, event, action, "success", None, services, actor=actor)
        services.log.caused_by(_by_person(job)).append(entry, session=session)
        return at_once

    return services.databases.transact(effect)


def _by_person(job: Job) -> Cause:
    """What is asked of a job comes another way than the job itself."""
    return Cause(channel="cli", trace_id=job.terms.trace_id)
