"""How a job comes in: every way ends in the same upsert, and a message that is wrong is refused."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from bson import Binary, ObjectId
from bson.binary import UUID_SUBTYPE
from pydantic import BaseModel, ConfigDict, Field

from compliance.clock import to_milliseconds
from compliance.datamap.subject import parse_subject_id, to_text
from compliance.errors import ComplianceError, InvalidPayload, RequestConflict, UntrustedSender
from compliance.jobs.document import new_document
from compliance.jobs.job import (
    DEFAULT_PRIORITY,
    HIGHEST_PRIORITY,
    Job,
    RequestId,
    Terms,
    refuse_reserved,
    to_request_id,
)
from compliance.mongo import Document, Session
from worker.attempt import carry_out_at_once, carry_out_most_urgent
from worker.job import JobKind, Moment, Payload, check
from worker.refusal import Refusal, leave, note_id
from worker.services import Progress, Services
from worker.signature import Seal

REQUEST_ID = "request_id"
OWN_ORIGINS = ("schedule", "watcher", "campaign", "erasure")  # only what comes this way may have a request id of ours
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


class Urgency(BaseModel):
    """What a sender may say beside the payload of any task."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    priority: Annotated[int, Field(ge=0, le=HIGHEST_PRIORITY, strict=True)] = DEFAULT_PRIORITY
    deadline: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request to do something, as it came in.

    Attributes:
        values: The payload, and beside it what ``Urgency`` knows; not validated yet.
        request_id: The idempotency key; not validated yet.
        message_id: The broker's, for the note of a refusal where the request id cannot be kept.
        origin: Which way it came, see ``Job``.
        traceparent: The W3C Trace Context header of the sender, if any.
        is_repeat: Whether its job may be recorded: the broker delivered it before, or it only rings.
        fault: Why it cannot be read, where it could not.
        seal: What its sender says about itself.
    """

    kind: JobKind
    values: Mapping[str, Any]
    request_id: str
    message_id: str = ""
    origin: str = "celery"
    traceparent: str | None = None
    is_repeat: bool = False
    fault: str | None = None
    seal: Seal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A message that can become a job."""

    kind: JobKind
    request_id: RequestId
    payload: Payload
    origin: str
    received_at: datetime
    sender: str | None
    terms: Terms
    locks: tuple[str, ...]

    @property
    def stored(self) -> dict[str, Any]:
        """The payload as the ledger holds it."""
        return self.payload.model_dump(mode="json", exclude_none=True)

    @property
    def document(self) -> Document:
        """The job as it is recorded."""
        return new_document(
            self.request_id,
            kind=self.kind.name,
            payload=self.stored,
            origin=self.origin,
            now=self.received_at,
            sender=self.sender,
            terms=self.terms,
            locks=self.locks,
        )


def admit(message: Message, services: Services, *, sender: str | None = None) -> Admitted:
    """Look whether *message* can become a job; nothing is recorded.

    Args:
        message: The request.
        services: The services.
        sender: The service that was proven to ask, see ``Job``; never ``Message.seal``, which anybody can write.

    Raises:
        InvalidPayload: With every fault by field.
    """
    payload, urgency = parse_request(message.kind, message.values)
    # Before anything is recorded: a name or an address must not be.
    subjects = [to_text(parse_subject_id(subject_id, services.data_map)) for subject_id in payload.subjects()]
    now = services.clock.now()
    deadline = to_milliseconds(urgency.deadline) if urgency.deadline else message.kind.due(now)
    return Admitted(
        kind=message.kind,
        request_id=to_request_id(message.request_id),
        payload=payload,
        origin=message.origin,
        received_at=now,
        sender=sender,
        terms=Terms(priority=urgency.priority, deadline=deadline, trace_id=trace_id(message.traceparent)),
        locks=payload.locks(subjects),
    )


def parse_request(kind: JobKind, values: Mapping[str, Any]) -> tuple[Payload, Urgency]:
    """Return what *values* say to do, and how urgent it is.

    Raises:
        InvalidPayload: With every fault of both, by field.
    """
    asked = {name: value for name, value in values.items() if name in Urgency.model_fields}
    rest = {name: value for name, value in values.items() if name not in asked}
    (payload, faults), (urgency, more) = check(kind.payload, rest), check(Urgency, asked)
    if payload is None or urgency is None:
        raise InvalidPayload(f"{kind.task}: {'; '.join(sorted(faults | more))}")
    return payload, urgency


def with_text_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* with ids as text: who asks through MongoDB has them as they stand in documents."""
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> Any:
    match value:
        case ObjectId() | UUID():
            return str(value)
        case Binary() if value.subtype == UUID_SUBTYPE:
            return str(value.as_uuid())
        case list() | tuple():
            return [_as_text(element) for element in value]
    return value


def trace_id(traceparent: str | None) -> str:
    """Return the trace id of a ``traceparent`` header, or a new one where there is none.

    Source: W3C Trace Context, section 3.2.
    """
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match.group(1) if match else secrets.token_hex(16)


def submit(
    kind: JobKind,
    values: Mapping[str, Any],
    *,
    request_id: str,
    origin: str,
    services: Services,
    sender: str | None = None,
    session: Session | None = None,
) -> Job:
    """Make a job durable and return it: the same request twice is one job.

    Args:
        kind: The kind of work.
        values: See ``Message``.
        request_id: The idempotency key.
        origin: Which way it came, see ``Job``.
        services: The services.
        sender: The service that was proven to ask, see ``Job``.
        session: The transaction to record it in, if any.

    Raises:
        InvalidPayload: When *values* or *request_id* do not fit; nothing was recorded.
        RequestConflict: When the request id came before with another payload.
    """
    if origin not in OWN_ORIGINS:
        refuse_reserved(request_id)
    message = Message(kind=kind, values=values, request_id=request_id, origin=origin)
    return record(admit(message, services, sender=sender), services, session=session)


def record(admitted: Admitted, services: Services, *, session: Session | None = None) -> Job:
    """Make an admitted message durable; see ``submit``."""
    return services.ledger.record(admitted.document, session=session)


def receive(message: Message, *, services: Services, on_progress: Progress = lambda _: None) -> None:
    """Take a message: make it durable, and work on the most urgent job of its kind.

    A message that can never succeed is recorded as refused, with the reason, and not tried again. So is one whose
    sender is not trusted or uses a request id of ours, unless it only rings for a job that is recorded: this is what
    our own publisher sends.

    Raises:
        TransientError: Only while the ledger cannot be reached, so that nothing is recorded yet.
    """
    try:
        sender = _prove_sender(message, services)
    except (InvalidPayload, UntrustedSender) as error:
        recorded = _rung(message, services)
        if recorded is None:
            _refuse(message, error, services)
    else:
        recorded = _take(message, sender, services)
    if recorded is not None:
        carry_out_most_urgent(message.kind, recorded, services=services, on_progress=on_progress)


def _prove_sender(message: Message, services: Services) -> str | None:
    """Return the service that signed *message*, None where messages need no signature.

    Raises:
        InvalidPayload: When the message could not be read, or has a request id of ours.
        UntrustedSender: When it is not signed as it must be.
    """
    if message.fault is not None:
        raise InvalidPayload(message.fault)
    refuse_reserved(message.request_id)
    if services.keyring is None:
        return None
    return services.keyring.verify(
        message.seal,
        message.kind.task,
        message.values,
        request_id=str(message.request_id),
        now=services.clock.now(),
        window=services.settings.signature_window,
    )


def _take(message: Message, sender: str | None, services: Services) -> Job | None:
    """Return the job that *message* asks for, None where it is done already, or refused."""
    try:
        admitted = admit(message, services, sender=sender)
        return None if _carry_out_at_once(message, admitted, services) else record(admitted, services)
    except (InvalidPayload, RequestConflict) as error:
        _refuse(message, error, services, sender=sender)
        return None


def _rung(message: Message, services: Services) -> Job | None:
    """Return the recorded job that *message* only rings for, if that is what it does."""
    if message.fault is not None:
        return None
    try:
        admitted = admit(message, services)
    except InvalidPayload:
        return None
    return services.ledger.find_equal(admitted.request_id, kind=admitted.kind.name, payload=admitted.stored)


def _carry_out_at_once(message: Message, admitted: Admitted, services: Services) -> bool:
    # A message that was delivered before may have killed its worker: it is recorded first, so that this is counted.
    # Where the job is recorded, a transaction that inserts it must fail.
    if not message.kind.is_small or message.is_repeat:
        return False
    return carry_out_at_once(message.kind, admitted.document, services)


def _refuse(message: Message, error: ComplianceError, services: Services, *, sender: str | None = None) -> None:
    """Record a refused message without anything of its payload; see ``Refusal``."""
    request_id = note_id(message.request_id, message.message_id)
    leave(Refusal(message.kind.name, request_id, message.origin, error, sender), services)
