"""``compliance.erasure.request``: erase one data subject, or with ``dry_run`` show what would be done."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from compliance.audit.entry import Detail, Entry
from compliance.datamap.subject import parse_subject_id, parse_tenant, to_entity_id
from compliance.erasure.procedure import erase
from compliance.erasure.progress import Erasure, documents_changed
from compliance.erasure.request import Requests
from compliance.erasure.stage import Stage, due_date
from compliance.erasure.surface import PACKAGES
from compliance.erasure.surfaces import LOOKS
from compliance.jobs.job import Job
from compliance.jobs.run import Run
from compliance.mongo import Session
from compliance.period import parse_grace
from compliance.transfer.exported import packages_in
from worker.erasures import note_failure
from worker.job import ACTOR, Payload, job, subject_lock
from worker.services import Services
from worker.tasks.recipient_tell import Announcement

LEAVING_ACTIONS = {Stage.WITHDRAWN: "erasure.withdrawn", Stage.FAILED: "erasure.failed"}


def _states_grace(text: str) -> str:
    parse_grace(text)
    return text


class EraseSubject(Payload):
    """Whom to erase.

    Attributes:
        subject_id: The opaque id, as text; a pseudonym where the root key is personal.
        dry_run: Record the plan and end.
        grace: How long to wait after the plan, such as ``P3D``; that of the settings where absent.
        tenant: Whose person it is, where the data map says that several organisations share the database.
    """

    subject_id: str
    dry_run: bool = False
    grace: Annotated[str, AfterValidator(_states_grace)] | None = None
    tenant: str | None = None

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let one job at a time change or read out one person."""
        return () if self.dry_run else tuple(map(subject_lock, subjects))


def _withdraw(cancelled: Job, services: Services, session: Session) -> None:
    _leave(cancelled, Stage.WITHDRAWN, "success", services, session)


def _fail(parked: Job, services: Services, session: Session) -> None:
    note_failure(parked, services, session)
    _leave(parked, Stage.FAILED, "failure", services, session)


def _leave(job: Job, stage: Stage, outcome: str, services: Services, session: Session) -> None:
    """Move the request of *job* to *stage* with an entry that says how much was done before, where it may go there."""
    now = services.clock.now()
    before = Requests(services.databases).try_move(job.request_id, stage, now=now, session=session)
    if before is not None:
        now_stored = services.ledger.jobs.find_one({"_id": job.request_id}, {"checkpoint": 1}, session=session) or {}
        changed = documents_changed(now_stored.get("checkpoint") or {})
        details: dict[str, Detail] = {"from": before["state"], "documents": changed}
        entry = Entry(
            event=f"{job.request_id}#{stage.value}#{job.fence}",
            entity_type="user",
            entity_id=to_entity_id(before["subject_id"]),
            action=LEAVING_ACTIONS[stage],
            created_at=now,
            performed_by=ACTOR,
            outcome=outcome,
            request_id=job.request_id,
            details=details,
        )
        services.log.caused_by(job.cause).append(entry, session=session)


@job("erasure.request", EraseSubject, queue="compliance.erasure", due=due_date, on_cancel=_withdraw, on_failure=_fail)
def erasure_request(payload: EraseSubject, run: Run, services: Services) -> None:
    """Erase one data subject (GDPR Art. 17)."""
    notices = Announcement(erasure=run.job.request_id, services=services, sender=run.job.sender)
    erasure = Erasure(
        run=run,
        databases=services.databases,
        data_map=services.data_map,
        subject_id=parse_subject_id(payload.subject_id, services.data_map),
        batch_docs=services.settings.batch_docs,
        actor=ACTOR,
        pseudonyms=services.pseudonyms,
        looks=(*LOOKS, (PACKAGES, packages_in(services.transfer_dir))),
        on_complete=notices.record,
        tenant=parse_tenant(payload.tenant, services.data_map),
    )
    grace = services.settings.erasure_grace if payload.grace is None else parse_grace(payload.grace)
    erase(erasure, dry_run=payload.dry_run, grace=grace)
    notices.publish()
