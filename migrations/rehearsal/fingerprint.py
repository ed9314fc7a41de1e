"""What a database holds, as far as a way back has to restore it: options, indexes and documents of each collection.

Documents count whatever their order in the collection, and whatever the order of their fields: a field that is taken
away and put back comes last, and no application may depend on it. Values within objects and arrays keep their order.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from compliance.mongo import Db, driver_errors
from compliance.roles import PRE_IMAGES

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
MODULUS = 2**256


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """One collection.

    Attributes:
        options: Kind and options, in Extended JSON.
        indexes: In Extended JSON, by name.
        documents: How many there are.
        content: The sum of the hashes of all documents.
    """

    options: str
    indexes: str
    documents: int
    content: int


def fingerprints(database: Db) -> dict[str, Fingerprint]:
    """Return the fingerprint of every collection and view of *database*; documents are read once, and not kept."""
    with driver_errors():
        listed = [info for info in database.list_collections() if not _is_ours(info["name"])]
        return {info["name"]: _fingerprint(database, info) for info in listed}


def _is_ours(name: str) -> bool:
    """Whether the server's or ours: what a migration overwrites is kept for a while, and is no state to restore."""
    return name.startswith("system.") or name == PRE_IMAGES


def differences(before: Mapping[str, Fingerprint], after: Mapping[str, Fingerprint]) -> dict[str, str]:
    """Return what differs, by collection: in what, as people read it."""
    found = dict.fromkeys(after.keys() - before.keys(), "was not there before")
    found |= dict.fromkeys(before.keys() - after.keys(), "is gone")
    for name in before.keys() & after.keys():
        parts = _parts(before[name], after[name])
        if parts:
            found[name] = f"other {' and '.join(parts)}"
    return dict(sorted(found.items()))


def _parts(one: Fingerprint, other: Fingerprint) -> list[str]:
    parts = ["options"] if one.options != other.options else []
    parts += ["indexes"] if one.indexes != other.indexes else []
    if (one.documents, one.content) != (other.documents, other.content):
        parts.append(f"documents ({one.documents} before, {other.documents} after)")
    return parts


def _fingerprint(database: Db, info: Mapping[str, Any]) -> Fingerprint:
    options = _text({"type": info["type"], "options": info.get("options", {})})
    if info["type"] == "view":
        return Fingerprint(options=options, indexes="", documents=0, content=0)
    name = info["name"]
    indexes = {} if info["type"] == "timeseries" else {one["name"]: one for one in database[name].list_indexes()}
    documents = content = 0
    raw: Any = database.get_collection(name, codec_options=RAW)
    for document in raw.find({}):
        documents += 1
        content = (content + _hash(document)) % MODULUS
    return Fingerprint(options=options, indexes=_text(indexes), documents=documents, content=content)


def _hash(document: Any) -> int:
    values: dict[str, Any] = bson.decode(document.raw)
    return int.from_bytes(hashlib.sha256(bson.encode(dict(sorted(values.items())))).digest())


def _text(value: Any) -> str:
    return json_util.dumps(value, sort_keys=True, default=json_util.default)
