"""Incidents: what was done to the audit database, or beside it, that no process of ours does.

An incident is a fact to keep, not a job to carry out: it goes into a collection that only grows, and nobody closes it.
Most are events of the server. Some are states, such as a fork, which are found again and again while they last: each
time that one begins is an incident, an *episode*.

Document shape (``audit_incidents``)::

    {_id: str, kind: str, what: str, at: date}
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pymongo import DESCENDING
from pymongo.errors import BulkWriteError

from compliance.audit.log import LENIENT
from compliance.mongo import DUPLICATE_KEY, Databases, Document, driver_errors
from compliance.roles import INCIDENTS

MAX_WHAT = 500


class Kind(StrEnum):
    """What happened; the closed list of ``kind``."""

    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    PRUNED = "PRUNED"
    DROPPED = "DROPPED"
    RENAMED = "RENAMED"
    CREATED = "CREATED"
    SCHEMA_CHANGED = "SCHEMA-CHANGED"
    INDEX_CHANGED = "INDEX-CHANGED"
    REPLACED = "REPLACED"
    FORGED = "FORGED"
    BACKDATED = "BACKDATED"
    PERSONAL_DATA = "PERSONAL-DATA"
    APPLY_OPS = "APPLY-OPS"
    UNAUDITED_WRITE = "UNAUDITED-WRITE"
    FORK = "FORK"
    ROLLBACK = "ROLLBACK"
    WATCH_LOST = "WATCH-LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that happened.

    Attributes:
        what: One sentence with ids and names, never a value.
        at: When the server did it, else when it was noticed.
        event: What identifies it, such as a resume token; the same event read twice is one incident. For a state,
            nothing but what it says.
    """

    kind: Kind
    what: str
    at: datetime
    event: str = ""

    @property
    def id(self) -> str:
        """The deterministic id: the first 32 hex digits of SHA-256 over kind and event."""
        return hashlib.sha256(f"{self.kind}\x00{self.event or self.what}".encode()).hexdigest()[:32]

    @property
    def is_state(self) -> bool:
        """Whether it is something that lasts, and no event that the server can name."""
        return self.event in ("", self.what)

    def episode(self, began: datetime) -> "Incident":
        """Return the incident that this state is since it *began*."""
        return replace(self, at=began, event=f"{self.what} since {began.isoformat()}")

    @property
    def sentence(self) -> str:
        """What is kept of `what`: no odd or long name may keep the validator from taking an incident."""
        return self.what.replace("@", "_")[:MAX_WHAT]


def to_document(incident: Incident) -> Document:
    """Return *incident* as it is stored."""
    return {"_id": incident.id, "kind": incident.kind.value, "what": incident.sentence, "at": incident.at}


def find_newest(databases: Databases, *, since: datetime | None = None, limit: int) -> list[Document]:
    """Return the newest incidents, oldest of them first; a document that somebody altered is one, too.

    Args:
        databases: Reached with rights to read the audit database.
        since: None for all times.
        limit: How many at most.
    """
    kept = databases.audit.get_collection(INCIDENTS, codec_options=LENIENT)
    query = {"at": {"$gte": since}} if since is not None else {}
    with driver_errors():
        found = list(kept.find(query, sort=[("at", DESCENDING), ("_id", DESCENDING)], limit=limit))
    return found[::-1]


def find_begin(databases: Databases, state: Incident, *, after: datetime) -> datetime | None:
    """Return when the last episode of *state* before it began that is kept, None where none began *after* a time.

    Raises:
        StoreUnavailable: When MongoDB does not answer.
    """
    query = {"kind": state.kind.value, "what": state.sentence, "at": {"$gt": after, "$lte": state.at}}
    with driver_errors():
        found = databases.audit[INCIDENTS].find_one(query, {"at": 1}, sort={"at": DESCENDING})
    return found["at"] if found else None


def record(databases: Databases, incident: Incident) -> bool:
    """Add *incident*, in no transaction; return whether it is new.

    Raises:
        StoreUnavailable: When MongoDB does not answer; call again, it is harmless.
    """
    return record_all(databases, [incident]) == 1


def record_all(databases: Databases, incidents: Sequence[Incident]) -> int:
    """Add *incidents*, in no transaction; return how many are new.

    Raises:
        StoreUnavailable: When MongoDB does not answer; call again, it is harmless.
    """
    documents = {incident.id: to_document(incident) for incident in incidents}
    if not documents:
        return 0
    with driver_errors():
        try:
            databases.audit[INCIDENTS].insert_many(documents.values(), ordered=False)
        except BulkWriteError as error:
            known = [fault for fault in error.details["writeErrors"] if fault["code"] == DUPLICATE_KEY]
            if len(known) < len(error.details["writeErrors"]) or error.details["writeConcernErrors"]:
                raise
            return len(documents) - len(known)
    return len(documents)
