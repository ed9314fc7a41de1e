"""One entry of the audit log: who did what to whom, when, where from and with what outcome.

Ids, counts, codes and names of fields and collections only. Fields that others rely on have their published names; the
others answer what PCI DSS 10.2.2, ISO 27001 A.8.15 and SOC 2 CC7.2 ask for.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId

from compliance.audit.leaf import MAX_INTEGER
from compliance.audit.vocabulary import ACTIONS
from compliance.errors import InvalidPayload

EntityId = ObjectId | str
Detail = int | bool | str | None | list[str] | dict[str, int]

VERSION = 1
OUTCOMES = ("success", "failure", "denied", "partial")
MAX_CANONICAL_BYTES = 65_535  # a C2SP tlog-tiles bundle stores the length of a leaf in 16 bits

_TYPE = re.compile(r"[a-z_]{1,40}")
_ENTITY = re.compile(r"[^@]{1,200}", re.DOTALL)
_ACTOR = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_MAX_REQUEST_ID = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something was done: what is known of the request behind it.

    Attributes:
        channel: How the request came: ``celery``, ``outbox``, ``schedule``, ``watcher``, ``campaign`` or ``cli``.
        trace_id: 32 hex digits that logs and errors carry (W3C Trace Context, section 3.2.2.3).
        requested_by: The service whose signature over the request was verified; None where nobody verified one.
    """

    channel: str | None = None
    trace_id: str | None = None
    requested_by: str | None = None


UNKNOWN_CAUSE = Cause()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event to record.

    Attributes:
        event: What identifies the event; the same event recorded twice is one entry.
        entity_type: ``user``, ``collection``, ``migration``, ``job``, ...
        entity_id: The opaque id of the entity; never an e-mail address or a name.
        action: A dotted verb of the closed vocabulary, such as ``erasure.completed``.
        performed_by: The service, operator or schedule behind it, such as ``worker`` or ``cli``.
        details: Counts, codes and names of fields and collections.

    Raises:
        InvalidPayload: When the entry could hold personal data, or is not of the vocabulary; no value is repeated.
    """

    event: str
    entity_type: str
    entity_id: EntityId
    action: str
    created_at: datetime
    performed_by: str
    outcome: str = "success"
    request_id: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [name for name, is_right in self._checks() if not is_right]
        if faults:
            raise InvalidPayload(f"an audit entry is wrong in: {', '.join(faults)}")

    def _checks(self) -> list[tuple[str, bool]]:
        return [
            ("entity_type", bool(_TYPE.fullmatch(self.entity_type))),
            ("entity_id", isinstance(self.entity_id, ObjectId) or bool(_ENTITY.fullmatch(self.entity_id))),
            ("action", self.action in ACTIONS),
            ("performed_by", bool(_ACTOR.fullmatch(self.performed_by))),
            ("outcome", self.outcome in OUTCOMES),
            ("request_id", self.request_id is None or len(self.request_id) <= _MAX_REQUEST_ID),
            ("details", all(map(_is_detail, self.details.values()))),
        ]

    @property
    def id(self) -> str:
        """The deterministic id: the first 32 hex digits of SHA-256 over event and action."""
        return hashlib.sha256(f"{self.event}\x00{self.action}".encode()).hexdigest()[:32]


def to_document(entry: Entry, cause: Cause = UNKNOWN_CAUSE) -> dict[str, Any]:
    """Return what *entry* says, as it is stored.

    Document shape (``audit_log``); the writer adds ``log``, ``source``, ``writer`` and ``sig``::

        {_id: str, v: 1, log: str, entity_type: str, entity_id: ObjectId | str, action: str, created_at: date,
         performed_by: str, requested_by: str | null, outcome: str, request_id: str | null, details: object,
         source: {host: str, process: str, channel: str | null, trace_id: str | null},
         writer: {key: str, stream: str, seq: int, prev: str | null}, sig: str}
    """
    return {
        "_id": entry.id,
        "v": VERSION,
        "entity_type": entry.entity_type,
        "entity_id": entry.entity_id,
        "action": entry.action,
        "created_at": entry.created_at,
        "performed_by": entry.performed_by,
        "requested_by": cause.requested_by,
        "outcome": entry.outcome,
        "request_id": entry.request_id,
        "details": dict(entry.details),
    }


def _is_detail(value: object) -> bool:
    match value:
        case None | bool():
            return True
        case int():
            return abs(value) <= MAX_INTEGER
        case str():
            return "@" not in value
        case list():
            return all(isinstance(element, str) and "@" not in element for element in value)
        case dict():
            return all(isinstance(name, str) and _is_count(count) for name, count in value.items())
    return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and abs(value) <= MAX_INTEGER
