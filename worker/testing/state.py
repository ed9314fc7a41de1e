"""What a database holds, to be compared and put back: documents in any order, options, indexes.

The order of the fields at the top of a document does not count: ``$unset`` and ``$set`` change it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import DatetimeConversion

from compliance.mongo import CODEC, Db, Document

SHOWN = 5
EXACT = CODEC.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One collection or view.

    Attributes:
        indexes: By name.
        documents: By the bytes of their ``_id``.
    """

    kind: str
    options: Document
    indexes: Mapping[str, Document]
    documents: Mapping[bytes, Document]


State = Mapping[str, Held]


def read_state(database: Db, *, without: Collection[str] = ()) -> State:
    """Return what *database* holds; all of it is kept in memory."""
    listed = [info for info in database.list_collections() if not info["name"].startswith("system.")]
    return {info["name"]: _read(database, info) for info in listed if info["name"] not in without}


def _read(database: Db, info: Mapping[str, Any]) -> Held:
    kind, options = str(info["type"]), dict(info["options"])
    if kind == "view":
        return Held(kind=kind, options=options, indexes={}, documents={})
    found = database.get_collection(info["name"], codec_options=EXACT)
    indexes = {index["name"]: dict(index) for index in found.list_indexes()}
    return Held(
        kind=kind, options=options, indexes=indexes, documents={key_of(one["_id"]): one for one in found.find()}
    )


def key_of(id_: Any) -> bytes:
    """Return what tells an ``_id`` from every other, whatever its type is."""
    return bson.encode({"_id": id_})


def digest_of(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of *document* with the fields at its top in the order of their names."""
    return bson.encode(dict(sorted(document.items())), codec_options=EXACT)


def compare(wanted: State, found: State) -> list[str]:
    """Return a sentence for each way in which *found* is not *wanted*: names, numbers and the first ids."""
    sentences = [f"the collection {name} is missing" for name in sorted(wanted.keys() - found.keys())]
    sentences += [f"the collection {name} should not be there" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        sentences += _compare(name, wanted[name], found[name])
    return sentences


def _compare(name: str, wanted: Held, found: Held) -> Iterable[str]:
    if (wanted.kind, wanted.options) != (found.kind, found.options):
        differing = sorted(_differing(wanted.options, found.options)) or ["type"]
        yield f"the options of {name} differ: {', '.join(differing)}"
    for index in sorted(_differing(wanted.indexes, found.indexes)):
        yield f"the index {name}.{index} {_state_of(index, wanted.indexes, found.indexes)}"
    both = wanted.documents.keys() & found.documents.keys()
    changed = [key for key in both if digest_of(wanted.documents[key]) != digest_of(found.documents[key])]
    if changed:
        fields = sorted({one for key in changed for one in _differing(wanted.documents[key], found.documents[key])})
        yield f"{_number(changed)} of {name} differ in {', '.join(fields)} ({_ids(changed)})"
    missing = wanted.documents.keys() - found.documents.keys()
    if missing:
        yield f"{_number(missing)} of {name} missing ({_ids(missing)})"
    new = found.documents.keys() - wanted.documents.keys()
    if new:
        yield f"{_number(new)} of {name} too many ({_ids(new)})"


def _state_of(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if name not in found:
        return "is missing"
    return "differs" if name in wanted else "should not be there"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if _bytes(one, name) != _bytes(other, name)}


def _bytes(values: Mapping[str, Any], name: str) -> bytes | None:
    return bson.encode({"": values[name]}, codec_options=EXACT) if name in values else None


def _number(keys: Collection[bytes]) -> str:
    return "1 document" if len(keys) == 1 else f"{len(keys)} documents"


def _ids(keys: Iterable[bytes]) -> str:
    ordered = sorted(keys)
    shown = ", ".join(repr(bson.decode(key, codec_options=EXACT)["_id"]) for key in ordered[:SHOWN])
    return f"_id {shown}, ..." if len(ordered) > SHOWN else f"_id {shown}"


def restore(database: Db, wanted: State, *, without: Collection[str] = ()) -> None:
    """Make *database* what *wanted* says, touching only what differs."""
    found = read_state(database, without=without)
    for name, held in found.items():
        other = wanted.get(name)
        if other is None or (other.kind, other.options, other.indexes) != (held.kind, held.options, held.indexes):
            database.drop_collection(name)
    left = read_state(database, without=without)
    for name, held in wanted.items():
        if name not in left:
            _make(database, name, held)
        if held.kind == "view" or (name in left and not _compare_documents(held, left[name])):
            continue
        database[name].delete_many({})
        if held.documents:
            database[name].insert_many(held.documents.values(), bypass_document_validation=True)


def _make(database: Db, name: str, held: Held) -> None:
    database.create_collection(name, **held.options)
    for index in held.indexes.values():
        if index["name"] != "_id_":
            database.command("createIndexes", name, indexes=[index])


def _compare_documents(wanted: Held, found: Held) -> bool:
    """Whether the documents differ."""
    return wanted.documents.keys() != found.documents.keys() or any(
        digest_of(document) != digest_of(found.documents[key]) for key, document in wanted.documents.items()
    )
