"""Walk a collection in the order of ``_id``, page by page, whatever BSON types its ids have; reads only.

A filter ``{_id: {$gt: last}}`` stays within the type of *last*: on ids of many types it ends early and looks complete.
``$expr`` compares across types in the order of an index, and the server still seeks to the place; it also computes both
comparisons for each document, which a range within one type spares.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bson import MinKey, ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from compliance.mongo import Document, Session, driver_errors

BY_ID = [("_id", ASCENDING)]
UNTIL = "until"  # of a place: the id behind which a walk does not go
WHOLE_TYPES = (ObjectId, str, int, datetime)  # of which a range holds nothing else, and every value has its place


def behind(last: Any) -> Document:
    """Return the filter of every document whose ``_id`` sorts behind *last*."""
    return {"$expr": {"$gt": ["$_id", {"$literal": last}]}}


def between(place: Mapping[str, Any], end: Mapping[str, Any]) -> Document:
    """Return the filter of every document behind *place*, up to and with *end*; each is ``{"last": id}``."""
    if "last" in place and _are_of_one_type(place["last"], end["last"]):
        return {"_id": {"$gt": place["last"], "$lte": end["last"]}}
    upto = {"$expr": {"$lte": ["$_id", {"$literal": end["last"]}]}}
    return {"$and": [behind(place["last"]), upto]} if "last" in place else upto


def _are_of_one_type(first: Any, last: Any) -> bool:
    return any(type(first) is kind and type(last) is kind for kind in WHOLE_TYPES)


def next_place(collection: Collection[Document], place: Mapping[str, Any], *, limit: int) -> dict[str, Any]:
    """Return the place *limit* documents behind *place*, or the last there is; empty at the end.

    The index alone is read, and one id is sent, however many documents there are between the two places. A *place* that
    says ``until`` ends there.
    """
    rest = _rest(place)
    with driver_errors():
        ids = collection.find(rest, {"_id": 1}, hint=BY_ID)
        found = next(ids.sort(BY_ID).skip(limit - 1).limit(1), None)
        if found is None:
            found = next(collection.find(rest, {"_id": 1}, hint=BY_ID).sort("_id", DESCENDING).limit(1), None)
    return {} if found is None else {"last": found["_id"]}


def _rest(place: Mapping[str, Any]) -> Document:
    if UNTIL in place:
        return between(place, {"last": place[UNTIL]})
    return behind(place["last"]) if "last" in place else {}


def end_of(collection: Collection[Document]) -> dict[str, Any]:
    """Return ``{"until": id}`` with the greatest id that there is: what is inserted behind it is not walked.

    Read is what the primary has, replicated or not: who follows the changes since a moment before misses nothing.
    """
    here = collection.with_options(read_concern=ReadConcern("local"))
    with driver_errors():
        found = next(here.find({}, {"_id": 1}, hint=BY_ID).sort("_id", DESCENDING).limit(1), None)
    return {UNTIL: MinKey() if found is None else found["_id"]}


def page(
    collection: Collection[Document],
    where: Document,
    place: Mapping[str, Any],
    *,
    limit: int,
    session: Session | None = None,
) -> list[Any]:
    """Return the next ids that match *where*, at most *limit*; none when the walk is at its end.

    The index of ``_id`` is walked whatever *where* says: an index on a field that the walk changes would show documents
    twice. A document that is inserted before the place is not seen by this walk.

    Args:
        collection: What is walked.
        where: Which documents count.
        place: Empty at the beginning, then ``{"last": id}`` with the last id of the page before.
        limit: Greater than 0.
        session: The transaction in which to read, if any.
    """
    filters = [where, behind(place["last"])] if "last" in place else [where]
    with driver_errors(session):
        found = collection.find({"$and": filters}, {"_id": 1}, hint=BY_ID, session=session)
        return [document["_id"] for document in found.sort(BY_ID).limit(limit)]
