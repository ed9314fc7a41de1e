"""Walk a collection in the order of ``_id``, page by page, whatever BSON types its ids have; reads only.

A filter ``{_id: {$gt: last}}`` stays within the type of *last*: on ids of many types it ends early and looks complete.
``$expr`` compares across types in the order of an index, and the server still seeks to the place.
"""

from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING
from pymongo.collection import Collection

from compliance.mongo import Document, Session, driver_errors

BY_ID = [("_id", ASCENDING)]


def behind(last: Any) -> Document:
    """Return the filter of every document whose ``_id`` sorts behind *last*."""
    return {"$expr": {"$gt": ["$_id", {"$literal": last}]}}


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
