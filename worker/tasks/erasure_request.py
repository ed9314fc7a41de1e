"""``compliance.erasure.request``: erase one data subject, or with ``dry_run`` show what would be done."""

from compliance.datamap.subject import parse_subject_id
from compliance.erasure.execute import Erasure, erase
from compliance.jobs.run import Run
from worker.job import ACTOR, Payload, job
from worker.services import Services


class EraseSubject(Payload):
    """Whom to erase.

    Attributes:
        subject_id: The opaque id, as text.
        dry_run: Record the plan and end.
    """

    subject_id: str
    dry_run: bool = False


@job("erasure.request", EraseSubject, queue="compliance.erasure")
def erasure_request(payload: EraseSubject, run: Run, services: Services) -> None:
    """Erase one data subject (GDPR Art. 17)."""
    erasure = Erasure(
        run=run,
        databases=services.databases,
        data_map=services.data_map,
        subject_id=parse_subject_id(payload.subject_id, services.data_map),
        batch_docs=services.settings.batch_docs,
        actor=ACTOR,
    )
    erase(erasure, dry_run=payload.dry_run)
