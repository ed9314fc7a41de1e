"""Say who of the people who were erased stands in documents that were written, or found, after the erasure.

A document that a law keeps whole may name them, and so may one of another organisation that shares the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.datamap.model import DataMap
from compliance.erasure.erased import Erased, Recognised
from compliance.erasure.locate import RELAXED
from compliance.erasure.returns import Returned
from compliance.erasure.spared import Spared
from compliance.mongo import Db, Document, driver_errors

RAW = RELAXED.with_options(document_class=RawBSONDocument)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written to one document.

    Attributes:
        key: The ``_id`` of the document.
        parts: The bytes that may name somebody: the document, or its key and the fields that changed.
        document: The whole document, where it is known.
    """

    collection: str
    key: Any
    parts: tuple[bytes, ...]
    document: RawBSONDocument | None


def people_in(written: Sequence[Written], erased: Erased, data_map: DataMap, *, now: datetime) -> list[Returned]:
    """Return those of the people *erased* whose data came back in what was *written*, each once."""
    requests = erased.returned_in(part for one in written for part in one.parts)
    found = ((request, _places(request, written, erased, data_map)) for request in requests)
    return [
        Returned(
            subject_id=request["subject_id"],
            tenant=request.get("tenant"),
            earlier=request["_id"],
            erased_at=request.get("completed_at") or now,
            collections=tuple(places),
        )
        for request, places in found
        if places
    ]


def _places(request: Document, written: Sequence[Written], erased: Erased, data_map: DataMap) -> list[str]:
    """Return the collections in which the person of *request* stands where nobody may."""
    finder, database = Recognised.of([request], erased.pseudonyms), erased.databases.app
    spared = Spared.of(database, data_map, finder, tenant=request.get("tenant"))
    decides = bool(spared.steps) or spared.tenant is not None
    places: set[str] = set()
    for one in written:
        if one.collection in places or not any(finder.found_in(part) for part in one.parts):
            continue
        document = _whole(one, database) if decides else None
        if not decides or (document is not None and not spared.spares(one.collection, document)):
            places.add(one.collection)
    return sorted(places)


def _whole(one: Written, database: Db) -> RawBSONDocument | None:
    """Return the document as it was written, else as it is now; None where it is gone."""
    if one.document is not None:
        return one.document
    with driver_errors():
        collection: Collection[Any] = database.get_collection(one.collection, codec_options=RAW)
        return collection.find_one({"_id": one.key})


def whole_documents(collection: str, documents: Iterable[RawBSONDocument]) -> list[Written]:
    """Return *documents* of *collection* as if each had just been written."""
    return [
        Written(collection=collection, key=None, parts=(bytes(document.raw),), document=document)
        for document in documents
    ]
