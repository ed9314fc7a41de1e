"""Look whether the shapes agree: on every document, or before anything is changed on a sample."""

from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING
from pymongo.read_concern import ReadConcern

from compliance.errors import ShapesDisagree, StepRefused
from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.online.shape import AGREES, Shape, Side, compare, holds
from migrations.ops.keyset import BY_ID, behind
from migrations.ops.validator import SHOWN, Violators

SAMPLE = 1000
PAGE = 500
FAILS = "guard them with $type, $ifNull or $convert, so that they give a value for any document"


def find_disagreeing(databases: Databases, shape: Shape, *, is_leaving: bool = False) -> Violators | None:
    """Return the documents whose shapes do not agree; reads the collection once, at majority.

    Args:
        is_leaving: One shape is being removed, so that a document without it is as it should be.
    """
    some = {"$firstN": {"input": "$_id", "n": SHOWN}}
    both = [{"$match": holds(shape.old)}, {"$match": holds(shape.new)}] if is_leaving else []
    stages = [*both, *_disagreeing(shape), {"$group": {"_id": None, "number": {"$sum": 1}, "ids": some}}]
    for found in _read(databases, shape, stages):
        return Violators(found["number"], tuple(found["ids"]))
    return None


def page_of_disagreeing(
    databases: Databases, shape: Shape, place: Mapping[str, Any], *, limit: int = PAGE
) -> list[Document]:
    """Return the next documents behind *place* whose shapes do not agree, in the order of ``_id``: the shapes alone."""
    rest = [{"$match": behind(place["last"])}] if "last" in place else []
    stages = [*rest, {"$sort": dict(BY_ID)}, *_disagreeing(shape), {"$limit": limit}, _shapes_alone(shape)]
    return _read(databases, shape, stages)


def still_disagreeing(databases: Databases, shape: Shape, before: list[Document]) -> list[Document]:
    """Return the documents among *before* that are as they were, and do not agree."""
    ids = {"$match": {"_id": {"$in": [document["_id"] for document in before]}}}
    now = _read(databases, shape, [ids, *_disagreeing(shape), _shapes_alone(shape)])
    return [document for document in now if document in before]


def disagrees(databases: Databases, shape: Shape, one: Mapping[str, Any], *, session: Session) -> bool:
    """Whether the shapes of the document *one* do not agree in the transaction of *session*."""
    stages = [{"$match": one}, *_disagreeing(shape)]
    return bool(list(databases.app[shape.collection].aggregate(stages, session=session)))


def _shapes_alone(shape: Shape) -> Document:
    return {"$project": dict.fromkeys((*shape.old, *shape.new), ASCENDING)}


def check_ways(databases: Databases, shape: Shape) -> None:
    """Return if both ways can be gone on a sample of documents, and there and back is where they began.

    Raises:
        ShapesDisagree: With the number and up to five ids; a way that is declared lossy need not come back.
    """
    back = {"$ne": [_values(shape.old), "$__before"]}
    stages: list[Document] = [
        {"$match": holds(shape.old)},
        {"$limit": SAMPLE},
        {"$set": {"__before": _values(shape.old)}},
        *shape.towards(Side.NEW),
        *shape.towards(Side.OLD),
        {"$match": {"$expr": back}},
        {"$group": {"_id": None, "number": {"$sum": 1}, "ids": {"$firstN": {"input": "$_id", "n": SHOWN}}}},
    ]
    for found in _read(databases, shape, stages):
        if not shape.lossy:
            raise ShapesDisagree(
                f"{shape.collection}: down after up gives another value for {found['number']} of {SAMPLE} documents: "
                f"{Violators(found['number'], tuple(found['ids']))}; correct the pipelines, or say in lossy what is "
                "lost and why that is right"
            )


def check_free(databases: Databases, shape: Shape) -> None:
    """Return if no document has the new shape yet: nobody could tell which of two values counts.

    Raises:
        ShapesDisagree: With the number and up to five ids of those that have.
    """
    some = {"$firstN": {"input": "$_id", "n": SHOWN}}
    taken = [{"$match": holds(shape.new)}, {"$group": {"_id": None, "number": {"$sum": 1}, "ids": some}}]
    for found in _read(databases, shape, taken):
        named = Violators(found["number"], tuple(found["ids"]))
        raise ShapesDisagree(
            f"{found['number']} documents of {shape.collection} have {', '.join(shape.new)} before the change begins: "
            f"{named}; remove the fields or give the new shape others; the new application writes once it has begun"
        )


def _values(fields: tuple[str, ...]) -> Document:
    return {"$mergeObjects": [{f"f{number}": f"${name}" for number, name in enumerate(fields)}]}


def _disagreeing(shape: Shape) -> list[Document]:
    known = holds((*shape.old, *shape.new))
    return [{"$match": known}, *compare(shape), {"$match": {"$expr": {"$not": [AGREES]}}}]


def _read(databases: Databases, shape: Shape, stages: list[Document]) -> list[Document]:
    collection = databases.app[shape.collection].with_options(read_concern=ReadConcern("majority"))
    try:
        with driver_errors():
            return list(collection.aggregate(stages))
    except StepRefused as error:
        raise ShapesDisagree(f"{shape.collection}: up or down fails for a document ({error}); {FAILS}") from None
