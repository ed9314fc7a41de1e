"""``compliance.consent.update``: a person granted or withdrew consent for one purpose."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

from compliance.clock import to_milliseconds
from compliance.consent.ledger import ConsentEvent, ConsentLedger
from compliance.datamap.model import DataMap
from compliance.datamap.subject import parse_subject_id
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Session
from worker.job import ACTOR, Moment, Payload, job, subject_lock
from worker.services import Services


def _no_number(value: object) -> object:
    """Refuse Unix time, which says neither its unit nor its zone."""
    if isinstance(value, str | datetime):
        return value
    raise ValueError("expected a time with its zone, such as 2026-05-01T12:00:00Z")


class ConsentUpdate(Payload):
    """One consent event.

    Attributes:
        event_id: Names the event at its source; the same event twice is one.
        type: The purpose.
        occurred_at: When the person decided, with a time zone (RFC 3339).
        notice: Version of the text that was shown.
    """

    event_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
    subject_id: str
    type: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]
    granted: bool
    occurred_at: Annotated[Moment, BeforeValidator(_no_number)]
    notice: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")] | None = None

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Keep consent out of a running erasure of the same person."""
        return tuple(map(subject_lock, subjects))


def to_event(payload: ConsentUpdate, data_map: DataMap) -> ConsentEvent:
    """Return the event that *payload* describes."""
    return ConsentEvent(
        event_id=payload.event_id,
        subject_id=parse_subject_id(payload.subject_id, data_map),
        type=payload.type,
        granted=payload.granted,
        occurred_at=to_milliseconds(payload.occurred_at),
        notice=payload.notice,
    )


@job("consent.update", ConsentUpdate, queue="compliance.consent", is_small=True)
def consent_update(payload: ConsentUpdate, run: Run, services: Services) -> None:
    """Record the event, the current state and the entry in one transaction."""
    event = to_event(payload, services.data_map)
    consent = ConsentLedger(services.databases, services.data_map, run.log, services.pseudonyms)
    user_id = consent.find_key(event.subject_id, check=run.check)

    def effect(session: Session) -> Outcome:
        standing = consent.record(
            event,
            user_id=user_id,
            request_id=run.job.request_id,
            actor=ACTOR,
            now=services.clock.now(),
            session=session,
        )
        return Outcome(result={"type": event.type, "granted": standing.granted})

    run.commit(effect)
