"""A job: one run of one kind of work, identified by the request that asked for it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from compliance.errors import InvalidPayload

RequestId = NewType("RequestId", str)
Payload = dict[str, Any]

_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")
_EMAIL = re.compile(r"[^\s@]@[^\s@]+\.[A-Za-z]{2,}")


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    PARKED = "parked"


FINAL = (State.DONE, State.REJECTED, State.PARKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger holds it.

    Attributes:
        request_id: The idempotency key: the same key twice is one job.
        kind: The kind of work, such as ``erasure.request``.
        payload: Ids only, validated by the kind's model.
        takeovers: Workers in a row that vanished without committing anything.
        fence: Grows with every claim; a transaction of an older fence commits nothing.
        checkpoint: What the last committed transaction left for its successor.
        result: Counts and ids, once the job is done.
        error: ``{code, message}`` of the last failure.
    """

    request_id: RequestId
    kind: str
    payload: Payload
    state: State
    created_at: datetime
    attempts: int = 0
    takeovers: int = 0
    fence: int = 0
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None


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


def payload_hash(payload: Payload) -> str:
    """Return the SHA-256 of *payload*, by which a repeated request id is compared."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def from_document(document: Mapping[str, Any]) -> Job:
    """Return the job that *document* of the ledger holds."""
    return Job(
        request_id=RequestId(document["_id"]),
        kind=document["kind"],
        payload=document["payload"],
        state=State(document["state"]),
        created_at=document["created_at"],
        attempts=document["attempts"],
        takeovers=document.get("takeovers", 0),
        fence=document["fence"],
        checkpoint=document.get("checkpoint") or {},
        result=document.get("result"),
        error=document.get("error"),
    )
