"""Copies of documents that migrations keep for a while, in the application database, where every sweep looks.

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

from compliance.datamap.subject import Identity
from compliance.erasure.stage import COMPLETE, REQUESTS, Stage
from compliance.erasure.sweep import Finder, compile_needles, sweep_collection
from compliance.mongo import Databases, Db, Document, Session, driver_errors
from compliance.roles import PRE_IMAGES

LOOKED_AT = 1000
BEING_ERASED = (Stage.EXECUTING, Stage.RESIDUAL_FOUND, *COMPLETE)


def forget(database: Db, collection: str, ids: list[Any], *, session: Session) -> None:
    """Remove the copies of the documents *ids* of *collection* in the transaction of *session*."""
    database[PRE_IMAGES].delete_many({"collection": collection, "document_id": {"$in": ids}}, session=session)


def stray_copies(
    database: Db, needles: Finder, *, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the copies that have to go, as names of collections with ids of their documents.

    *check* is called for every batch and ends the search by what it raises.
    """
    found = (document["_id"] for document in sweep_collection(database[PRE_IMAGES], needles, check=check))
    yield from ((PRE_IMAGES, ids) for ids in _in_batches(found))
    yield from ((PRE_IMAGES, ids) for ids in _in_batches(_orphans(database, check)))


def people_erased(databases: Databases) -> Finder:
    """Return what recognises people whose erasure has begun or is complete, by the ids of their requests.

    Where these are pseudonyms nobody is recognised: there the erasure itself has removed the copies.
    """
    query = {"state": {"$in": [stage.value for stage in BEING_ERASED]}, "dry_run": False}
    with driver_errors():
        found = databases.compliance[REQUESTS].find(query, {"subject_id": 1})
        return compile_needles(Identity({"id": request["subject_id"]}) for request in found)


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
