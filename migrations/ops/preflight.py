"""What would make an index build fail, looked for before anything is built; reads only."""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from bson import MinKey

from compliance.errors import StepFailed
from compliance.health.index_spec import Keys, Options
from compliance.mongo import Document, driver_errors
from migrations.ops.observed import is_to_be_written

if TYPE_CHECKING:
    from migrations.hands import Hands

SHOWN = 5
MOST_INDEXES = 64


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Documents that share a key.

    Attributes:
        number: How many keys are shared.
        ids: Of at most five of them, the ids of up to five documents each.
    """

    number: int
    ids: tuple[tuple[Any, ...], ...]

    def __str__(self) -> str:
        """The ids, as a sentence needs them."""
        shown = "; ".join(", ".join(str(id_) for id_ in group) for group in self.ids)
        more = f" ({self.number} such groups, {len(self.ids)} shown)" if self.number > len(self.ids) else ""
        return f"{shown}{more}"


def find_duplicates(ctx: "Hands", collection: str, keys: Keys, options: Options) -> Duplicates | None:
    """Return which documents a unique index on *keys* would refuse.

    Counts as the index would: a field that is missing is null; each element of an array is a key, and may stand in its
    own document twice; only what partial filter and ``sparse`` let in; strings by the collation.
    """
    fields = [field for field, _ in keys]
    values = [f"k{n}" for n in range(len(fields))]
    least = {"$minN": {"input": {"of": "$_id.document"}, "n": SHOWN}}  # of documents, for it skips null
    some = {"$minN": {"input": "$ids", "n": SHOWN}}
    pipeline: list[Document] = [
        {"$match": _indexed(fields, options)},
        {"$project": {value: _key(field) for value, field in zip(values, fields, strict=True)}},
        *({"$unwind": {"path": f"${value}", "preserveNullAndEmptyArrays": True}} for value in values),
        {"$group": {"_id": {"key": {value: f"${value}" for value in values}, "document": "$_id"}}},
        {"$group": {"_id": "$_id.key", "ids": least}},
        {"$match": {"ids.1": {"$exists": True}}},
        {"$group": {"_id": None, "number": {"$sum": 1}, "ids": some}},
    ]
    with driver_errors():
        found = ctx.databases.app[collection].aggregate(pipeline, allowDiskUse=True, collation=options.get("collation"))
        for group in found:
            return Duplicates(group["number"], tuple(tuple(document["of"] for document in ids) for ids in group["ids"]))
    return None


def refuse_duplicates(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    """Look for duplicates.

    Raises:
        StepFailed: Naming them by ``_id``; a dry run only says so where an earlier step changes documents.
    """
    found = find_duplicates(ctx, collection, keys, options)
    if found is not None and is_to_be_written(ctx, collection):
        ctx.report(f"documents of {collection} share a key as they are: {found}")
    elif found is not None:
        fields = " and ".join(field for field, _ in keys)
        raise StepFailed(
            f"{collection}.{name} cannot be unique: documents with the same {fields} have the _id {found}; "
            "merge or correct them, then migrate again"
        )


def refuse_parallel_arrays(ctx: "Hands", collection: str, name: str, keys: Keys) -> None:
    """Look for documents in which two fields of the index are arrays: an index can follow one.

    Raises:
        StepFailed: Naming them by ``_id``.
    """
    followed = [field for field, direction in keys if direction != "text" and "$**" not in field]
    pairs = [
        {"$and": [{one: {"$type": "array"}}, {other: {"$type": "array"}}]}
        for first, second in combinations(followed, 2)
        for one in _prefixes(first)
        for other in _prefixes(second)
        if not (f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."))
    ]
    if not pairs:
        return
    with driver_errors():
        found = ctx.databases.app[collection].find({"$or": pairs}, {"_id": 1}).limit(SHOWN + 1)
        ids = [str(document["_id"]) for document in found]
    if ids and is_to_be_written(ctx, collection):
        ctx.report(f"two fields of {collection}.{name} are arrays in documents as they are: {', '.join(ids[:SHOWN])}")
    elif ids:
        more = " (and more)" if len(ids) > SHOWN else ""
        raise StepFailed(
            f"index {collection}.{name} cannot be built: two of its fields are arrays in the documents with the _id "
            f"{', '.join(ids[:SHOWN])}{more}; make one of them no array, or build one index for each"
        )


def report_expiring(ctx: "Hands", collection: str, keys: Keys, options: Options) -> None:
    """Say how many documents the server would delete at once when the index is there."""
    seconds, field = options["expireAfterSeconds"], keys[0][0]
    old = {"$expr": {"$lt": [f"${field}", {"$subtract": ["$$NOW", int(seconds * 1000)]}]}, field: {"$type": "date"}}
    with driver_errors():
        number = ctx.databases.app[collection].count_documents(old)
    if ctx.is_dry_run:
        ctx.sketch.step.expiring = number
    ctx.report(f"{number} documents of {collection} are older and are deleted within a minute of the build")


def _indexed(fields: list[str], options: Options) -> Document:
    """Return the filter of the documents that are in the index."""
    filters: list[Document] = [options["partialFilterExpression"]] if "partialFilterExpression" in options else []
    if options.get("sparse"):
        filters.append({"$or": [{field: {"$exists": True}} for field in fields]})
    return {"$and": filters} if filters else {}


def _key(field: str) -> Document:
    """Return the key of *field*; an empty array has one that nothing else has."""
    return {"$cond": [{"$eq": [f"${field}", []]}, {"$literal": MinKey()}, {"$ifNull": [f"${field}", None]}]}


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
