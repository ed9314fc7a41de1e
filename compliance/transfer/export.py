"""What goes into a package: a whole collection, or everything about one person."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING

from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.rule import Pull
from compliance.datamap.subject import SubjectId, value_at
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.plan import Step, compile_steps
from compliance.errors import UnknownName, UnknownSubject
from compliance.mongo import Db, Document, driver_errors
from compliance.transfer.formats import ndjson


def collection_documents(database: Db, name: str) -> Iterator[Mapping[str, Any]]:
    """Return the documents of the collection *name* in the order of their ``_id``.

    Raises:
        UnknownName: At once, when there is no such collection; the message lists those there are.
    """
    with driver_errors():
        known = sorted(found for found in database.list_collection_names() if not found.startswith("system."))
    if name not in known:
        raise UnknownName(f"there is no collection of that name; known: {', '.join(known)}")
    return _stream(database, name)


def _stream(database: Db, name: str) -> Iterator[Mapping[str, Any]]:
    found = ndjson.as_stored(database, name).find({}, sort={"_id": ASCENDING}, batch_size=1000)
    with driver_errors():
        yield from map(ndjson.decode_exactly, found)


def subject_documents(
    database: Db,
    data_map: DataMap,
    subject_id: SubjectId,
    *,
    pseudonyms: Pseudonyms | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Iterable[Document]]]:
    """Return each collection with the documents that hold data of one person.

    Of arrays that hold several people only the person's own elements are given out (GDPR Art. 15(4)). *check* is called
    while people are read to find the one, and may end that by an error.

    Raises:
        UnknownSubject: At once, when there is no such person.
    """
    identity = find_identity(database, data_map, subject_id, pseudonyms=pseudonyms, check=check)
    if identity is None:
        raise UnknownSubject(f"no document of {data_map.subject.collection} has this {data_map.subject.key}")
    return _by_collection(Locator(database.with_options(codec_options=ndjson.WIDE), data_map, identity))


def _by_collection(locator: Locator) -> Iterator[tuple[str, Iterable[Document]]]:
    steps = sorted(compile_steps(locator.data_map), key=lambda step: step.collection)
    for collection, group in groupby(steps, key=lambda step: step.collection):
        own = list(group)
        shared = [step for step in own if isinstance(step.action, Pull)]
        yield collection, _documents(locator, own, shared)


def _documents(locator: Locator, steps: list[Step], shared: list[Step]) -> Iterator[Document]:
    seen: set[bytes] = set()
    own = [locator.referenced(pull) if pull.of else [locator.identity.values.get(str(pull.key))] for pull in shared]
    for step in steps:
        for found in locator.documents(step):
            # What was found by reading is raw, for an erasure must not stumble over what it does not look at.
            document = dict(ndjson.decode_exactly(found) if isinstance(found, RawBSONDocument) else found)
            key = bson.encode({"_id": document["_id"]})
            if key in seen:
                continue
            seen.add(key)
            yield _only_own(document, step, list(zip(shared, own, strict=True)))


def _only_own(document: Document, step: Step, shared: list[tuple[Step, list[Any]]]) -> Document:
    """Cut arrays of *document* to the person's elements; of somebody else's document nothing else is given out."""
    own = {
        pull.action.array: [
            element for element in value_at(document, pull.action.array) or () if _refers(element, pull) in ids
        ]
        for pull, ids in shared
        if isinstance(pull.action, Pull) and "." not in pull.action.array
    }
    if isinstance(step.action, Pull):
        return {"_id": document["_id"], step.action.array: own.get(step.action.array, [])}
    return document | {array: elements for array, elements in own.items() if array in document}


def _refers(element: Any, pull: Step) -> Any:
    """Return what *element* of the array of *pull* refers to a person by."""
    inside = pull.path.partition("[]")[2].removeprefix(".")
    return value_at(element, inside) if inside else element
