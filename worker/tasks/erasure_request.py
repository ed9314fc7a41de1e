"""``compliance.erasure.request``: erase one data subject, or with ``dry_run`` show what would be done."""

from collections.abc import Sequence

from compliance.audit.entry import Entry
from compliance.datamap.subject import parse_subject_id, to_entity_id
from compliance.erasure.procedure import erase
from compliance.erasure.progress import Erasure
from compliance.erasure.request import Requests
from compliance.erasure.stage import due_date
from compliance.erasure.surface import PACKAGES
from compliance.erasure.surfaces import LOOKS
from compliance.jobs.job import Job
from compliance.jobs.run import Run
from compliance.mongo import Session
from compliance.transfer.exported import packages_in
from worker.job import ACTOR, Payload, job, subject_lock
from worker.services import Services
from worker.tasks.recipient_tell import Announcement


class EraseSubject(Payload):
    """Whom to erase.

    Attributes:
        subject_id: The opaque id, as text; a pseudonym where the root key is personal.
        dry_run: Record the plan and end.
    """

    subject_id: str
    dry_run: bool = False

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let one job at a time change or read out one person."""
        return () if self.dry_run else tuple(map(subject_lock, subjects))


def _withdraw(cancelled: Job, services: Services, session: Session) -> None:
    now = services.clock.now()
    if Requests(services.databases).withdraw(cancelled.request_id, now=now, session=session):
        entry = Entry(
            event=f"{cancelled.request_id}#{cancelled.fence}",
            entity_type="user",
            entity_id=to_entity_id(parse_subject_id(cancelled.payload["subject_id"], services.data_map)),
            action="erasure.withdrawn",
            created_at=now,
            performed_by=ACTOR,
            request_id=cancelled.request_id,
        )
        services.log.caused_by(cancelled.cause).append(entry, session=session)


@job("erasure.request", EraseSubject, queue="compliance.erasure", due=due_date, on_cancel=_withdraw)
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
    )
    erase(erasure, dry_run=payload.dry_run)
    notices.publish()
