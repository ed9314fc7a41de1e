"""Copies of documents that migrations keep for a while, in the application database, where every sweep looks.

What a migration overwrote is one kind, the copy of a collection that is rebuilt (``migrations.ops.rebuild``) the other.
A document that is erased takes its copies along in the same transaction. What that does not find is looked for before a
person counts as erased: copies in which an identifier stands, and copies of documents that are gone.

Document shape (``compliance_pre_images``), what a migration overwrote::

    {_id: ObjectId, collection: str, document_id: any, revision: str, step: int, before: [{path: str, value?: any}],
     after: bin(32), kept_at: date, expires_at: date, left?: "changed"}

``value`` is missing where the field was; ``after`` is the SHA-256 of what the migration wrote into these fields.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import bson

from compliance.erasure.sweep import Finder, sweep_collection
from compliance.mongo import Databases, Db, Document, Session, driver_errors
from compliance.roles import CONTROL, PRE_IMAGES, shadow_of

LOOKED_AT = 1000


def forget(database: Db, collection: str, ids: list[Any], *, session: Session) -> None:
    """Remove the copies of the documents *ids* of *collection* in the transaction of *session*.

    Where the collection is being rebuilt, who rebuilds it sees that, and copies what is still there.
    """
    for name, of_it, by_id in (
        (shadow_of(collection), {}, "_id"),
        (PRE_IMAGES, {"collection": collection}, "document_id"),
    ):
        copies = database[name]
        if copies.find_one(of_it, {"_id": 1}, session=session) is not None:  # costs less than to state all *ids*
            copies.delete_many({**of_it, by_id: {"$in": ids}}, session=session)


def rebuilt(databases: Databases) -> tuple[str, ...]:
    """Return the collections that are being rebuilt."""
    with driver_errors():
        found = databases.compliance[CONTROL].find({"is_over": False}, {"collection": 1})
        return tuple(str(record["collection"]) for record in found)


def is_copy(name: str, collections: Iterable[str]) -> bool:
    """Whether *name* is that of a copy of one of *collections*, under whichever of its names."""
    return any(name == shadow_of(one) or name.startswith(f"{shadow_of(one)}_") for one in collections)


def stray_copies(
    databases: Databases, needles: Finder, *, skip: Iterable[str] = (), check: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the copies that have to go, as names of collections with ids of their documents.

    Args:
        databases: Where to look.
        needles: What must not stand in a copy.
        skip: Collections whose documents are still there, so that their copies would come back.
        check: Called for every batch; ends the search by what it raises.
    """
    database = databases.app
    looked_at = [shadow_of(one) for one in rebuilt(databases) if one not in set(skip)]
    for name in (PRE_IMAGES, *looked_at):
        found = (document["_id"] for document in sweep_collection(database[name], needles, check=check))
        yield from ((name, ids) for ids in _in_batches(found))
    yield from ((PRE_IMAGES, ids) for ids in _in_batches(_orphans(database, check)))


def _orphans(database: Db, check: Callable[[], None]) -> Iterator[Any]:
    """Yield the ids of pre-images whose document is not there any more: nothing could be given back to it."""
    with driver_errors():
        kept = database[PRE_IMAGES].find({}, {"collection": 1, "document_id": 1})
        for batch in _in_batches(kept):
            check()
            for collection in {copy["collection"] for copy in batch}:
                copies = [copy for copy in batch if copy["collection"] == collection]
                present = _present(database, collection, copies)
                yield from (copy["_id"] for copy in copies if _key(copy["document_id"]) not in present)


def _present(database: Db, collection: str, copies: Iterable[Document]) -> set[bytes]:
    ids = [copy["document_id"] for copy in copies]
    return {_key(found["_id"]) for found in database[collection].find({"_id": {"$in": ids}}, {"_id": 1})}


def _key(id_: Any) -> bytes:
    return bson.encode({"": id_})


def _in_batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, LOOKED_AT)):
        yield batch
