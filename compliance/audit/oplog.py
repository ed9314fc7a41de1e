"""What entries of the oplog mean that change streams do not show, or do not show whole; no I/O.

- ``applyOps`` by hand: before MongoDB 6.1 it leaves no change event. Transactions look the same in the oplog, but those
  of a driver name the session that they belong to.
- A transaction that wrote documents of the application and appended no audit entry, although it is one of ours: its
  session is that of a user of ours, or it wrote to a collection of ours as well.
- A write of a user of ours to the application's documents in no transaction at all.

Source: MongoDB SERVER-64972; the digest of a user in a session is ``LogicalSessionId.uid``.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from bson import Timestamp

from compliance.audit.incident import Incident, Kind
from compliance.mongo import Document
from compliance.roles import AUDIT_LOG, OUTBOX, Role

Logged = Mapping[str, Any]
Operation = tuple[str, str]  # what was done, and where

USERS = (Role.WORKER, Role.MIGRATOR, Role.SEALER)
BATCHED_SINCE = [6, 1]  # from here on the server itself writes batches of its own as applyOps, such as those of a TTL
FIELDS = {
    "ts": 1,
    "t": 1,
    "wall": 1,
    "op": 1,
    "ns": 1,
    "fromMigrate": 1,
    "lsid.uid": 1,
    "prevOpTime.ts": 1,
    "o.count": 1,
    "o.applyOps.op": 1,
    "o.applyOps.ns": 1,
}

_NAMES = {"i": "insert", "u": "update", "d": "delete", "c": "command", "n": "nothing"}
_SHOWN = 5


def query(app: str, *, version: list[int]) -> Document:
    """Return what to look at: little leaves the server while nothing is wrong.

    Args:
        app: The name of the application database.
        version: Of the server, as ``buildInfo`` says it.
    """
    mine, ours = {"$regex": f"^{re.escape(app)}\\."}, {"$regex": f"^{re.escape(app)}_(audit|compliance)\\."}
    is_session, none = {"lsid": {"$exists": True}}, {"$exists": False}
    by_command = {"o.lsid": {"$exists": True}} if version >= BATCHED_SINCE else {}
    users = {"lsid.uid": {"$in": [user_digest(role, app) for role in USERS]}}
    work = {"o.applyOps.ns": {"$regex": f"^{re.escape(app)}_compliance\\.(?!({OUTBOX}|\\$cmd)$)"}}
    entry = {"$elemMatch": {"op": "i", "ns": f"{app}_audit.{AUDIT_LOG}"}}
    whole = {"op": "c", "o.applyOps.ns": mine, "o.partialTxn": none, "o.count": none, "o.applyOps": {"$not": entry}}
    return {
        "$or": [
            {"op": "c", "lsid": none, "o.applyOps.ns": ours},
            {"op": "c", "lsid": none, "o.applyOps.ns": mine, **by_command},
            {"fromMigrate": True, "ns": {"$regex": f"^{re.escape(app)}(_audit|_compliance)?\\."}},
            {**is_session, **whole, "$or": [users, work]},
            {**is_session, "op": "c", "o.count": {"$exists": True}},
            {**users, "op": {"$in": ["i", "u", "d"]}, "ns": mine},
        ]
    }


def user_digest(role: Role, app: str) -> bytes:
    """Return what a session says of its user."""
    return hashlib.sha256(f"{role.value}@{app}_compliance".encode()).digest()


def place_of(entry: Logged) -> Timestamp:
    """Return where *entry* stands in the oplog."""
    found: Timestamp = entry["ts"]
    return found


def part_before(entry: Logged) -> Timestamp | None:
    """Return where the part before this one of a large transaction stands, None for the first."""
    before = (entry.get("prevOpTime") or {}).get("ts")
    return before if isinstance(before, Timestamp) and before.time else None


def is_split(entry: Logged) -> bool:
    """Whether *entry* is the end of a transaction that was too large for one."""
    return "count" in (entry.get("o") or {})


def operations_of(entry: Logged) -> list[Operation]:
    """Return what *entry* did, without a value."""
    applied = (entry.get("o") or {}).get("applyOps")
    return [
        (_NAMES.get(str(found.get("op")), "something"), str(found.get("ns")))
        for found in (applied if applied is not None else [entry])
    ]


def judge(entry: Logged, operations: Iterable[Operation], *, app: str) -> Incident | None:
    """Return the incident that an entry is which ``query`` let pass, None where it is as it should be.

    Args:
        entry: The entry.
        operations: What it did; of a large transaction all parts.
        app: The name of the application database.
    """
    done = list(operations)
    if "lsid" not in entry or entry.get("fromMigrate"):
        how = "marked as a migration of chunks" if entry.get("fromMigrate") else "by applyOps"
        return _incident(Kind.APPLY_OPS, f"written {how}, unseen by change streams: {_shown(done)}", entry)
    written = [(how, where) for how, where in done if where.startswith(f"{app}.") and how != "command"]
    if not written or ("insert", f"{app}_audit.{AUDIT_LOG}") in done:
        return None
    user = _user(entry, app)
    if user is None and not any(_is_work(where, app) for _, where in done):
        return None
    what = f"{user or 'a process'} wrote without an audit entry in the same transaction: {_shown(written)}"
    return _incident(Kind.UNAUDITED_WRITE, what, entry)


def _incident(kind: Kind, what: str, entry: Logged) -> Incident:
    moment: datetime = entry["wall"]
    place = place_of(entry)
    return Incident(kind=kind, what=what, at=moment, event=f"{place.time}:{place.inc}:{entry.get('t')}")


def _user(entry: Logged, app: str) -> str | None:
    digest = bytes((entry.get("lsid") or {}).get("uid") or b"")
    return next((role.value for role in USERS if user_digest(role, app) == digest), None)


def _is_work(where: str, app: str) -> bool:
    database, _, collection = where.partition(".")
    return database == f"{app}_compliance" and collection not in (OUTBOX, "$cmd")


def _shown(operations: Iterable[Operation]) -> str:
    counted = Counter(operations)
    shown = [f"{number} x {how} {where}" for (how, where), number in sorted(counted.items())[:_SHOWN]]
    more = f" and {len(counted) - _SHOWN} more" if len(counted) > _SHOWN else ""
    return ", ".join(shown) + more
