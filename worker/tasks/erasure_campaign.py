"""``compliance.erasure.campaign``: erase many data subjects, each as a request of its own."""

import hashlib
from typing import Annotated

from pydantic import Field

from compliance.audit.entry import Entry
from compliance.jobs.job import Job, Prefix
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Session
from worker.intake import submit
from worker.job import ACTOR, JOBS, Payload, job
from worker.services import Services

MAX_SUBJECTS = 1000


class EraseSubjects(Payload):
    """Whom to erase: at most 1,000 opaque ids; send several campaigns for more."""

    subject_ids: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_SUBJECTS)]


@job("erasure.campaign", EraseSubjects, queue="compliance.erasure")
def erasure_campaign(payload: EraseSubjects, run: Run, services: Services) -> None:
    """Record one erasure request for each subject, all or none, and ring for each."""
    subjects = list(dict.fromkeys(payload.subject_ids))
    kind, now = JOBS["erasure.request"], services.clock.now()
    digest = hashlib.sha256(run.job.request_id.encode()).hexdigest()[:32]
    recorded: list[Job] = []

    def effect(session: Session) -> Outcome:
        recorded[:] = [
            submit(
                kind,
                {"subject_id": subject_id},
                request_id=f"{Prefix.CAMPAIGN}{digest}/{number}",
                origin="campaign",
                services=services,
                sender=run.job.sender,
                session=session,
            )
            for number, subject_id in enumerate(subjects)
        ]
        entry = Entry(
            event=run.job.request_id,
            entity_type="job",
            entity_id=run.job.request_id.replace("@", "(at)"),
            action="campaign.started",
            created_at=now,
            performed_by=ACTOR,
            request_id=run.job.request_id,
            details={"subjects": len(subjects)},
        )
        return Outcome(entries=(entry,), result={"requests": len(subjects)})

    run.commit(effect)
    for child in recorded:
        services.publish(child)
