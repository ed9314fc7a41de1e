"""How a job comes in: every way ends in the same upsert, and a message that is wrong leaves a note."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from compliance.clock import to_milliseconds
from compliance.datamap.subject import parse_subject_id, to_text
from compliance.errors import ComplianceError, DuplicateEntry, InvalidPayload, RequestConflict
from compliance.jobs.document import finished, new_document
from compliance.jobs.job import DEFAULT_PRIORITY, HIGHEST_PRIORITY, Job, RequestId, State, Terms, to_request_id
from compliance.mongo import Session
from worker.attempt import carry_out_at_once, carry_out_most_urgent, describe, job_entry
from worker.job import JobKind, Payload, parse, validate
from worker.services import Progress, Services
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

REQUEST_ID = "request_id"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


class Urgency(BaseModel):
    """What a sender may say beside the payload of any task."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    priority: Annotated[int, Field(ge=0, le=HIGHEST_PRIORITY, strict=True)] = DEFAULT_PRIORITY
    deadline: AwareDatetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request to do something, as it came in.

    Attributes:
        values: The payload, and beside it what ``Urgency`` knows; not validated yet.
        request_id: The idempotency key; not validated yet.
        origin: Which way it came, see ``Job``.
        traceparent: The W3C Trace Context header of the sender, if any.
        is_repeat: Whether the broker delivered it before.
    """

    kind: JobKind
    values: Mapping[str, Any]
    request_id: str
    origin: str = "celery"
    traceparent: str | None = None
    is_repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A message that can become a job."""

    kind: JobKind
    request_id: RequestId
    payload: Payload
    origin: str
    received_at: datetime
    terms: Terms
    locks: tuple[str, ...]

    @property
    def stored(self) -> dict[str, Any]:
        """The payload as the ledger holds it."""
        return self.payload.model_dump(mode="json", exclude_none=True)


def admit(message: Message, services: Services) -> Admitted:
    """Look whether *message* can become a job; nothing is recorded.

    Raises:
        InvalidPayload: With every fault by field.
    """
    asked = {name: value for name, value in message.values.items() if name in Urgency.model_fields}
    rest = {name: value for name, value in message.values.items() if name not in asked}
    payload = parse(message.kind, rest)
    urgency = validate(Urgency, asked, about=message.kind.task)
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
        terms=Terms(priority=urgency.priority, deadline=deadline, trace_id=trace_id(message.traceparent)),
        locks=payload.locks(subjects),
    )


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
    session: Session | None = None,
) -> Job:
    """Make a job durable and return it: the same request twice is one job.

    Raises:
        InvalidPayload: When *values* or *request_id* do not fit; nothing was recorded.
        RequestConflict: When the request id came before with another payload.
    """
    message = Message(kind=kind, values=values, request_id=request_id, origin=origin)
    return record(admit(message, services), services, session=session)


def record(admitted: Admitted, services: Services, *, session: Session | None = None) -> Job:
    """Make an admitted message durable; see ``submit``."""
    return services.ledger.record(
        admitted.request_id,
        kind=admitted.kind.name,
        payload=admitted.stored,
        origin=admitted.origin,
        now=admitted.received_at,
        terms=admitted.terms,
        locks=admitted.locks,
        session=session,
    )


def receive(message: Message, *, services: Services, on_progress: Progress = lambda _: None) -> None:
    """Take a message: make it durable, and work on the most urgent job of its kind.

    A message that can never succeed is recorded as refused, with the reason, and not tried again.

    Raises:
        TransientError: Only while the ledger cannot be reached, so that nothing is recorded yet.
    """
    try:
        admitted = admit(message, services)
        if _carry_out_at_once(message, admitted, services):
            return
        recorded = record(admitted, services)
    except (InvalidPayload, RequestConflict) as error:
        refuse(message, error, services)
        return
    carry_out_most_urgent(message.kind, recorded, services=services, on_progress=on_progress)


def _carry_out_at_once(message: Message, admitted: Admitted, services: Services) -> bool:
    # A message that was delivered before may have killed its worker: it is recorded first, so that this is counted.
    if not message.kind.is_small or message.is_repeat:
        return False
    document = new_document(
        admitted.request_id,
        kind=admitted.kind.name,
        payload=admitted.stored,
        origin=admitted.origin,
        now=admitted.received_at,
        terms=admitted.terms,
        locks=admitted.locks,
    )
    return carry_out_at_once(message.kind, document, services)


def refuse(message: Message, error: ComplianceError, services: Services, *, session: Session | None = None) -> None:
    """Record a refused message without anything of its payload; a job of the same id is left alone.

    The same message again is the same refusal. A corrected one takes the place of what stands here.
    """
    kind = message.kind
    log.warning("message.refused", kind=kind.name, error=type(error).__name__)
    metrics.REFUSED.inc(kind.name)
    described = describe(error)
    usable = _usable(message.request_id)
    now = services.clock.now()
    document = new_document(usable, kind=kind.name, payload={}, origin=message.origin, now=now)
    document |= finished(State.REJECTED, now=now, error=described, refused=True)
    event = f"?{kind.name}?{described['message']}"
    entry = job_entry(usable, event, "message.refused", "denied", described["code"], services)

    def effect(session: Session) -> None:
        if services.ledger.jobs.find_one({"_id": usable}, session=session) is None:
            services.ledger.jobs.insert_one(document, session=session)
        services.log.append(entry, session=session)

    if session is not None:
        effect(session)
        return
    try:
        services.databases.transact(effect)
    except DuplicateEntry:
        log.info("message.refused_before", kind=kind.name)


def _usable(request_id: str) -> RequestId:
    """Return *request_id*, or a stand-in where it may not be kept."""
    try:
        return to_request_id(request_id)
    except InvalidPayload:
        return RequestId(f"refused-{hashlib.sha256(str(request_id).encode()).hexdigest()[:16]}")
