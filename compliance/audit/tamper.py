"""What change events of the audit database mean: which of them no process of ours can have caused; no I/O.

Our processes only insert, and only into collections that ``doctor --provision`` made. Everything else is an incident,
also an event of a kind that no server knew when this was written. Two things are none: what ends in the declared state,
and entries that were deleted in the transaction that recorded their pruning.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any

from compliance.audit.incident import Incident, Kind
from compliance.audit.pruned import PRUNED
from compliance.audit.schema import INDEXES, VALIDATORS
from compliance.audit.signed import find_fault
from compliance.audit.trust import Trust
from compliance.mongo import Document
from compliance.roles import AUDIT_LOG

Event = Mapping[str, Any]
Judgement = tuple[Kind, str] | None

MAX_TRANSACTION = 10_000  # events of one transaction that are looked at together, so that memory stays bounded

# An insert that is as it should be does not leave the server, and of no document more than its key does.
STAGES: list[Document] = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$ne": "insert"}},
                {"ns.coll": {"$nin": sorted(VALIDATORS)}},
                {"ns.coll": AUDIT_LOG, "fullDocument.action": PRUNED},
            ]
        }
    },
    {
        "$project": {
            "operationType": 1,
            "ns": 1,
            "to": 1,
            "documentKey": 1,
            "collectionUUID": 1,
            "operationDescription": 1,
            "lsid": 1,
            "txnNumber": 1,
            "wallTime": 1,
            "fullDocument": {"$cond": [{"$eq": ["$fullDocument.action", PRUNED]}, "$fullDocument", "$$REMOVE"]},
        }
    },
]

_HEX_ID = re.compile(r"[0-9a-f]{32}")
_PLACES = ("start", "size", "level", "index")
_ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
_FIXED = {"validationLevel": "strict", "validationAction": "error", "idIndex": _ID_INDEX}


def transaction_of(event: Event) -> Hashable | None:
    """Return what the events of one transaction have in common, None for a write outside one."""
    session = event.get("lsid")
    if not isinstance(session, Mapping) or "txnNumber" not in event:
        return None
    return (bytes(session.get("id", b"")), bytes(session.get("uid", b"")), event["txnNumber"])


def find_incidents(events: Sequence[Event], trust: Trust) -> list[Incident]:
    """Return what was done by *events* that no process of ours does, or, as a pruning, a person only.

    Args:
        events: One event, or all of one transaction, as ``STAGES`` let them pass.
        trust: Whose signature makes a pruning one.
    """
    pruned = _is_pruning(events, trust)
    found = [judge(event) for event in events if not (pruned and _is_deleted_entry(event))]
    if pruned:
        found.append(_pruning(events))
    return [incident for incident in found if incident is not None]


def judge(event: Event) -> Incident | None:
    """Return the incident that *event* is by itself, None for one that is as it should be."""
    judgement = _JUDGES.get(event["operationType"], _unknown)(event)
    if judgement is None:
        return None
    kind, what = judgement
    # Of a collection that is not ours one incident is enough, however many documents go into it.
    identity = f"collection {event.get('collectionUUID')}" if kind is Kind.CREATED else str(event["_id"])
    moment: datetime = event["wallTime"]
    return Incident(kind=kind, what=what, at=moment, event=identity)


def _is_pruning(events: Sequence[Event], trust: Trust) -> bool:
    """Whether a signed entry among *events* says how many entries they delete; it must not be one that comes back."""
    recorded = [event["fullDocument"] for event in events if event.get("fullDocument")]
    deleted = [_key(event) for event in events if _is_deleted_entry(event)]
    if len(recorded) != 1 or find_fault(recorded[0], trust) is not None or recorded[0].get("_id") in deleted:
        return False
    details = recorded[0].get("details")
    return isinstance(details, Mapping) and details.get("entries") == len(deleted)


def _pruning(events: Sequence[Event]) -> Incident:
    """Return what people are told of a pruning: whoever holds a writer's key could sign another one."""
    (record,) = (event for event in events if event.get("fullDocument"))
    entry = record["fullDocument"]
    deleted = sum(map(_is_deleted_entry, events))
    what = f"{AUDIT_LOG}: {deleted} entries were removed, as entry {entry['_id']} says: was that you?"
    return Incident(kind=Kind.PRUNED, what=what, at=record["wallTime"], event=str(record["_id"]))


def _is_deleted_entry(event: Event) -> bool:
    return event["operationType"] == "delete" and _collection(event) == AUDIT_LOG


def _collection(event: Event) -> str:
    return str((event.get("ns") or {}).get("coll", "the database"))


def _key(event: Event) -> object:
    return (event.get("documentKey") or {}).get("_id")


def _options(event: Event) -> Mapping[str, Any]:
    return event.get("operationDescription") or {}


def _document(event: Event) -> str:
    """Name a document by the ids that we give; what somebody else wrote there could be anything."""
    key = _key(event)
    if isinstance(key, str) and _HEX_ID.fullmatch(key):
        return f"{_collection(event)}: document {key}"
    if isinstance(key, Mapping):
        places = [f"{name} {key[name]}" for name in _PLACES if type(key.get(name)) is int]
        if places:
            return f"{_collection(event)}: document of {', '.join(places)}"
    return f"{_collection(event)}: a document"


def _inserted(event: Event) -> Judgement:
    if _collection(event) in VALIDATORS:
        return None
    return Kind.CREATED, f"{_collection(event)}: no collection of ours, and somebody writes to it"


def _updated(event: Event) -> Judgement:
    return Kind.MODIFIED, f"{_document(event)} was {event['operationType']}d"


def _deleted(event: Event) -> Judgement:
    return Kind.DELETED, f"{_document(event)} was deleted"


def _dropped(event: Event) -> Judgement:
    return Kind.DROPPED, f"{_collection(event)} was dropped"


def _renamed(event: Event) -> Judgement:
    to = event.get("to") or _options(event).get("to") or {}
    target = f"{to.get('db')}.{to.get('coll')}"
    if "dropTarget" in _options(event):
        return Kind.REPLACED, f"{target} was replaced by {_collection(event)}"
    return Kind.RENAMED, f"{_collection(event)} was renamed to {target}"


def _created(event: Event) -> Judgement:
    name, options = _collection(event), _options(event)
    if name not in VALIDATORS:
        return Kind.CREATED, f"{name}: no collection of ours, and it was created"
    if _is_declared(name, options) and "validator" in options:
        return None
    return Kind.SCHEMA_CHANGED, f"{name} was created otherwise than it is declared"


def _modified(event: Event) -> Judgement:
    name, options = _collection(event), _options(event)
    if "index" in options:
        return Kind.INDEX_CHANGED, f"{name}: an index was changed"
    if name in VALIDATORS and options and _is_declared(name, options) and "idIndex" not in options:
        return None
    return Kind.SCHEMA_CHANGED, f"{name}: options were changed ({', '.join(sorted(map(str, options)))})"


def _is_declared(name: str, options: Mapping[str, Any]) -> bool:
    declared = _FIXED | {"validator": VALIDATORS[name]}
    return all(option in declared and declared[option] == value for option, value in options.items())


def _indexed(event: Event) -> Judgement:
    name = _collection(event)
    declared = [_index(index, keys) for index, keys in INDEXES.items()] if name == AUDIT_LOG else []
    others = [index for index in _indexes(event) if _in_order(index) not in declared]
    if _indexes(event) and not others:
        return None
    return Kind.INDEX_CHANGED, f"{name}: an index was created that is not declared ({_names(others)})"


def _unindexed(event: Event) -> Judgement:
    return Kind.INDEX_CHANGED, f"{_collection(event)}: an index was dropped ({_names(_indexes(event))})"


def _indexes(event: Event) -> list[Mapping[str, Any]]:
    return [index for index in _options(event).get("indexes") or [] if isinstance(index, Mapping)]


def _index(name: str, keys: Mapping[str, int]) -> list[tuple[str, Any]]:
    return _in_order({"v": 2, "name": name, "key": keys})


def _in_order(index: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what an index is; the order of its keys counts, that of its options does not."""
    key = index.get("key")
    return sorted({**index, "key": list(key.items()) if isinstance(key, Mapping) else key}.items())


def _names(indexes: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(index.get("name")) for index in indexes) or "unnamed"


def _unknown(event: Event) -> Judgement:
    return Kind.SCHEMA_CHANGED, f"{_collection(event)}: {event['operationType']}"


def _invalidated(_: Event) -> Judgement:
    return None  # says only that the stream has ended; the event before it says why


_JUDGES: Mapping[str, Callable[[Event], Judgement]] = {
    "insert": _inserted,
    "update": _updated,
    "replace": _updated,
    "delete": _deleted,
    "drop": _dropped,
    "dropDatabase": _dropped,
    "rename": _renamed,
    "create": _created,
    "modify": _modified,
    "createIndexes": _indexed,
    "dropIndexes": _unindexed,
    "invalidate": _invalidated,
}
