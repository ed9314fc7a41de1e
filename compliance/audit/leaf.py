"""The canonical bytes of an entry: what is signed, hashed, sealed and exported, byte by byte.

Source: RFC 8785, restricted to strings, integers below 2**53, booleans and null; times are integers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from bson import DatetimeMS, ObjectId

from compliance.audit.merkle import leaf_hash

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_INTEGER = 2**53 - 1  # beyond it, a reader that knows only doubles reads another number
SIGNATURE = "sig"

_MILLISECOND = timedelta(milliseconds=1)
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_BEYOND = "\uffff"  # names beyond this are sorted in UTF-16 otherwise than in UTF-8


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of *document*: sorted keys, no white space, ``{"$date": <ms>}``, ``{"$oid": "..."}``.

    Raises:
        TypeError: For a value that no entry can hold, such as a float: its text differs from one language to another.
    """
    return orjson.dumps(_plain(document), option=_OPTIONS)


def stored_bytes(document: Mapping[str, Any]) -> bytes:
    """Return `canonical_bytes` of a document that was written or read as an entry, in a fraction of the time.

    A value that no entry can hold has bytes here that no entry has, or raises ``TypeError`` as there.
    """
    plain, wrapped = dict(document), 0
    created_at, entity_id = plain.get("created_at"), plain.get("entity_id")
    if isinstance(created_at, DatetimeMS):  # elsewhere the encoder refuses these types, and the slow way decides
        plain["created_at"] = {"$date": int(created_at)}
        wrapped = 1
    elif isinstance(created_at, datetime) and created_at.tzinfo is not None:
        plain["created_at"] = {"$date": (created_at - EPOCH) // _MILLISECOND}
        wrapped = 1
    if isinstance(entity_id, ObjectId):
        plain["entity_id"] = {"$oid": str(entity_id)}
        wrapped += 1
    try:
        found = orjson.dumps(plain, option=_OPTIONS)
    except TypeError:
        return canonical_bytes(document)
    # A name with a dollar sign could imitate what is wrapped; whatever else begins with one costs time only.
    return found if found.count(b'"$') == wrapped and found.isascii() else canonical_bytes(document)


def unsigned(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return *document* without its signature: what the signature is over."""
    return {name: value for name, value in document.items() if name != SIGNATURE}


def entry_hash(document: Mapping[str, Any]) -> bytes:
    """Return the leaf hash of a document as it was read.

    Raises:
        TypeError: For a value that no entry can hold.
    """
    return leaf_hash(stored_bytes(document))


def _plain(value: object) -> object:
    match value:
        case None | str() | bool():
            return value
        case int() if -MAX_INTEGER <= value <= MAX_INTEGER:
            return int(value)
        case ObjectId() | datetime() | DatetimeMS():
            return _wrapped(value)
        case list() | tuple():
            return [_plain(element) for element in value]
        case Mapping():
            return {_plain_name(name): _plain(element) for name, element in value.items()}
    raise TypeError(f"an audit entry cannot hold this {type(value).__name__}")


def _wrapped(value: object) -> object:
    match value:
        case ObjectId():
            return {"$oid": str(value)}
        case DatetimeMS():
            return {"$date": int(value)}
        case datetime() if value.tzinfo is not None:
            return {"$date": (value - EPOCH) // _MILLISECOND}  # cut as BSON cuts
    raise TypeError(f"an audit entry cannot hold a {type(value).__name__}")


def _plain_name(name: object) -> str:
    """Without this, a text in the shape ``{"$oid": ...}`` would have the bytes of the id that it imitates."""
    if not isinstance(name, str) or name.startswith("$") or max(name, default="") > _BEYOND:
        raise TypeError("an audit entry cannot hold a name that is no text, begins with $ or holds an emoji")
    return name
