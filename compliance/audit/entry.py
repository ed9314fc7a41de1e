"""One entry of the audit log: who did what to whom, when, and with what outcome; ids, counts and field names only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

EntityId = ObjectId | str
Detail = int | bool | str | None | list[str] | dict[str, int]

OUTCOMES = ("success", "failure", "denied", "partial")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_CANONICAL_BYTES = 65_535  # a C2SP tlog-tiles bundle stores the length of a leaf in 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event to record.

    Attributes:
        event: What identifies the event; the same event recorded twice is one entry.
        entity_type: ``user``, ``collection``, ``migration``, ``job``, ...
        entity_id: The opaque id of the entity; never an e-mail address or a name.
        action: A dotted verb of the closed list in ``docs/glossary.md``, such as ``erasure.completed``.
        performed_by: The service, operator or schedule behind it, such as ``worker`` or ``cli``.
        details: Counts, codes and names of fields and collections.
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

    @property
    def id(self) -> str:
        """The deterministic id: the first 32 hex digits of SHA-256 over event and action."""
        return hashlib.sha256(f"{self.event}\x00{self.action}".encode()).hexdigest()[:32]


def to_document(entry: Entry) -> dict[str, Any]:
    """Return *entry* as it is stored, with the hash ``h`` of its canonical bytes.

    Document shape (``audit_log``)::

        {_id: str, entity_type: str, entity_id: ObjectId | str, action: str, created_at: date, performed_by: str,
         outcome: str, request_id: str | null, details: object, h: str}
    """
    document: dict[str, Any] = {
        "_id": entry.id,
        "entity_type": entry.entity_type,
        "entity_id": entry.entity_id,
        "action": entry.action,
        "created_at": entry.created_at,
        "performed_by": entry.performed_by,
        "outcome": entry.outcome,
        "request_id": entry.request_id,
        "details": dict(entry.details),
    }
    return document | {"h": leaf_hash(document)}


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are hashed: sorted keys, no white space, time as integer milliseconds, ids as text.

    Raises:
        TypeError: For a value that no entry can hold, such as a float: its text differs from one language to another.

    Source: RFC 8785, restricted to strings, integers, booleans and null.
    """
    body = {name: _plain(value) for name, value in document.items() if name != "h"}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_hash(document: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 leaf hash of *document* (RFC 6962 section 2.1: 0x00 and the bytes)."""
    return hashlib.sha256(b"\x00" + canonical_bytes(document)).hexdigest()


def _plain(value: object) -> object:
    match value:
        case None | str() | int():
            return value
        case ObjectId():
            return {"$oid": str(value)}
        case datetime():
            return {"$date": (value - EPOCH) // timedelta(milliseconds=1)}  # cut as BSON cuts; refuses naive times
        case list() | tuple():
            return [_plain(element) for element in value]
        case Mapping():
            return {_plain_name(name): _plain(element) for name, element in value.items()}
    raise TypeError(f"an audit entry cannot hold a {type(value).__name__}")


def _plain_name(name: object) -> str:
    """Without this, a text in the shape ``{"$oid": ...}`` would have the bytes of the id that it imitates."""
    if not isinstance(name, str) or name.startswith("$"):
        raise TypeError("an audit entry cannot hold a name that is no text or begins with $")
    return name
