"""What is left of a message that is wrong: a note in place of its job, and an entry."""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from compliance.audit.entry import Cause
from compliance.errors import ComplianceError, DuplicateEntry, InvalidPayload, UnknownName
from compliance.jobs.document import finished, new_document
from compliance.jobs.job import Prefix, RequestId, State, refuse_reserved, to_request_id, to_stand_in
from compliance.mongo import Session
from worker.attempt import describe, job_entry
from worker.services import Services
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

UNKNOWN = "unknown"  # the kind of work of a note about what asks for no task of ours


@dataclass(frozen=True, slots=True)
class Refusal:
    """A note that a message was wrong, in place of its job, and an entry; nothing of its payload.

    A job of the same id is left alone. The same message again is the same refusal. A corrected one takes the place of
    the note. Its sender is named where the signature was good and the rest was not.
    """

    kind: str
    request_id: RequestId
    origin: str
    error: ComplianceError
    sender: str | None = None

    def record(self, services: Services, session: Session) -> None:
        """Record it in the transaction of *session*.

        Raises:
            DuplicateEntry: When somebody else recorded the same at this moment; the transaction is aborted.
        """
        self.put_note(services, session)
        described = describe(self.error)
        event = f"?{self.kind}?{described['message']}"
        entry = job_entry(self.request_id, event, "message.refused", "denied", described["code"], services)
        if not services.log.holds(entry, session=session):
            cause = Cause(channel=self.origin, requested_by=self.sender)
            services.log.caused_by(cause).append(entry, session=session)

    def put_note(self, services: Services, session: Session) -> None:
        """Insert the note in the transaction of *session*, unless its request id is taken."""
        if services.ledger.jobs.find_one({"_id": self.request_id}, {"_id": 1}, session=session) is not None:
            return
        now = services.clock.now()
        document = new_document(
            self.request_id, kind=self.kind, payload={}, origin=self.origin, now=now, sender=self.sender
        )
        document |= finished(State.REJECTED, now=now, error=describe(self.error), refused=True)
        services.ledger.jobs.insert_one(document, session=session)


def leave(refusal: Refusal, services: Services) -> None:
    """Record *refusal*, log and count it.

    Raises:
        TransientError: While nothing can be recorded.
    """
    log.warning("message.refused", kind=refusal.kind, request_id=refusal.request_id, error=type(refusal.error).__name__)
    metrics.REFUSED.inc(refusal.kind)
    try:
        services.databases.transact(lambda session: refusal.record(services, session))
    except DuplicateEntry:
        log.info("message.refused_before", kind=refusal.kind, request_id=refusal.request_id)


def refuse_no_job(error: ComplianceError, request_id: str, *, message_id: str, services: Services) -> None:
    """Leave a note about a message that asks for no kind of work; see ``leave``.

    Args:
        error: What is wrong with it.
        request_id: What the sender gave, not validated.
        message_id: The broker's, for the note where that cannot be kept.
        services: The services.
    """
    leave(Refusal(UNKNOWN, note_id(request_id, message_id), "celery", error), services)


def no_such_task(known: Iterable[str]) -> UnknownName:
    """Return the error about a task that does not exist, with those that do."""
    return UnknownName(f"there is no such task; known: {', '.join(sorted(known))}")


def note_id(*given: str) -> RequestId:
    """Return the first of *given* that a note may stand under, else a stand-in: a job of ours must find its id free."""
    for value in given:
        try:
            usable = to_request_id(value)
            if not usable.startswith(Prefix.REFUSED):
                refuse_reserved(usable)
        except InvalidPayload:
            continue
        return usable
    return to_stand_in("\n".join(map(str, given)).encode(errors="backslashreplace"))
