"""A job: one run of one kind of work, identified by the request that asked for it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from compliance.audit.entry import Cause
from compliance.errors import InvalidPayload

RequestId = NewType("RequestId", str)
Payload = dict[str, Any]

DEFAULT_PRIORITY = 5
HIGHEST_PRIORITY = 9

_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")
_EMAIL = re.compile(r"[^\s@]@[^\s@]+\.[A-Za-z]{2,}")


class Prefix(StrEnum):
    """How the request ids begin that the processes make: no sender may use one, and so take the id of such a job."""

    SCHEDULE = "schedule:"
    WATCH = "watch-"
    CAMPAIGN = "campaign-"
    NOTICE = "notice-"
    HELD = "held-"
    OUTBOX = "outbox-"
    RETURNED = "returned-"
    REFUSED = "refused-"


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    PARKED = "parked"
    CANCELLED = "cancelled"


FINAL = (State.DONE, State.REJECTED, State.PARKED, State.CANCELLED)


class Ask(StrEnum):
    """What a person asked of a running job; it is heard at the next batch."""

    CANCEL = "cancel"
    PARK = "park"

    @property
    def leads_to(self) -> State:
        """The state of the job once it was heard."""
        return State.CANCELLED if self is Ask.CANCEL else State.PARKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How urgent a job is and how it is followed; no part of what is done, so a repeated request may differ in it.

    Attributes:
        priority: 0 to 9; a higher one goes first among the waiting jobs of a kind.
        deadline: When it should be done; an earlier one goes first within a priority. A job that is late is still
            carried out, and reported by the check ``overdue``.
        trace_id: 32 hex digits that logs and errors carry (W3C Trace Context, section 3.2.2.3).
    """

    priority: int = DEFAULT_PRIORITY
    deadline: datetime | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger holds it.

    Attributes:
        request_id: The idempotency key: the same key twice is one job.
        kind: The kind of work, such as ``erasure.request``.
        payload: Ids only, validated by the kind's model.
        origin: Where it came from: ``celery``, ``cli``, ``outbox``, ``watcher``, ``campaign`` or ``schedule``.
        sender: The service that was proven to ask, by the signature of the message that was recorded first; the jobs of
            a campaign have that of the campaign. None where nobody proved it: a name that was only claimed is not kept.
        terms: How urgent it is.
        locks: Names of what it must have alone while it runs.
        takeovers: Workers in a row that vanished without committing anything.
        fence: Grows with every claim; a transaction of an older fence commits nothing.
        checkpoint: What the last committed transaction left for its successor.
        result: Counts and ids, once the job is done.
        result_digest: SHA-256 of *result* as JSON with sorted keys: what a caller was told can be compared later.
        error: ``{code, message}`` of the last failure.
        asked: What a person asked of it while it was running.
        owner: The worker that has it, or had it and vanished: host, process and a name of this lease.
        lease_until: When *owner* loses it unless it says that it lives.
        run_at: Before this it is not tried again.
        finished_at: When it ended, or was parked.
    """

    request_id: RequestId
    kind: str
    payload: Payload
    state: State
    created_at: datetime
    origin: str = ""
    sender: str | None = None
    terms: Terms = Terms()
    locks: tuple[str, ...] = ()
    attempts: int = 0
    takeovers: int = 0
    fence: int = 0
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    result_digest: str | None = None
    error: Mapping[str, str] | None = None
    asked: Ask | None = None
    owner: str | None = None
    lease_until: datetime | None = None
    run_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def cause(self) -> Cause:
        """What its audit entries say of the request behind it."""
        return Cause(channel=self.origin or None, trace_id=self.terms.trace_id, requested_by=self.sender)


def to_request_id(value: object) -> RequestId:
    """Return *value* as a request id.

    Raises:
        InvalidPayload: Unless it is 1 to 128 printable ASCII characters; an e-mail address is refused, for the id is
            shown in many places.
    """
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise InvalidPayload("request_id: expected 1 to 128 printable ASCII characters")
    if _EMAIL.search(value):
        raise InvalidPayload("request_id: looks like an e-mail address; use an opaque id")
    return RequestId(value)


def refuse_reserved(value: object) -> None:
    """Return unless *value* begins as request ids that the processes make.

    Raises:
        InvalidPayload: With the prefixes, not the value.
    """
    if isinstance(value, str) and value.startswith(tuple(Prefix)):
        raise InvalidPayload(f"request_id: must not begin with {', '.join(Prefix)}: these are made here")


def to_stand_in(source: bytes) -> RequestId:
    """Return the id of the note about a message that has no usable one: the same for the same *source*."""
    return RequestId(f"{Prefix.REFUSED}{hashlib.sha256(source).hexdigest()[:16]}")
