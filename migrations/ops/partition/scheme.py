"""By which field and how finely a collection is shared out, and what is there of it; reads only."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compliance.datamap.buckets import Bucket, Every, bucket_of, parse_bucket
from compliance.errors import StepFailed, UnknownName
from compliance.health.declared import DECLARED
from compliance.mongo import Db, Document, driver_errors
from migrations.ops.observed import names_of

if TYPE_CHECKING:
    from migrations.hands import Hands

FIRST, BEHIND = datetime(1000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How one collection is partitioned.

    Attributes:
        field: Holds the date by which a document finds its bucket; without one, or with one before the year 1000 or
            after 9998, it stays.
    """

    collection: str
    field: str
    every: Every

    @property
    def view(self) -> str:
        """The view over the collection and all of its buckets."""
        return f"{self.collection}_all"

    @property
    def id(self) -> str:
        """The id of the declaration."""
        return f"partition:{self.collection}"

    @property
    def movable(self) -> Document:
        """The filter of the documents of the collection that have a bucket: a year has four digits."""
        return {self.field: {"$type": "date", "$gte": FIRST, "$lt": BEHIND}}

    def bucket_of(self, document: Document) -> Bucket:
        """Return the bucket of a document that has one."""
        value: Any = document
        for part in self.field.split("."):
            value = value[part]
        return bucket_of(self.collection, self.every, value)


def make_scheme(collection: str, *, field: str, every: str) -> Scheme:
    """Return a scheme from what a person wrote.

    Raises:
        UnknownName: For an *every* that there is not.
    """
    try:
        return Scheme(collection=collection, field=field, every=Every(every))
    except ValueError:
        raise UnknownName(f"there are no buckets by {every!r}; known: {', '.join(Every)}") from None


def find_scheme(ctx: "Hands", collection: str) -> Scheme | None:
    """Return the declared scheme of *collection*; in a dry run, also one that an earlier step would declare."""
    with driver_errors():
        declared = ctx.databases.compliance[DECLARED].find_one({"_id": f"partition:{collection}"})
    found = ctx.sketch.overlay.partitioned.get(collection) or declared
    return make_scheme(collection, field=found["field"], every=found["every"]) if found else None


def get_scheme(ctx: "Hands", collection: str) -> Scheme:
    """Return the declared scheme of *collection*.

    Raises:
        StepFailed: When it is not partitioned.
    """
    found = find_scheme(ctx, collection)
    if found is None:
        raise StepFailed(f"{collection} is not partitioned; `compliance partition apply` does it")
    return found


def present_buckets(ctx: "Hands", scheme: Scheme) -> list[Bucket]:
    """Return the buckets that exist, oldest first."""
    return sorted(bucket for name in names_of(ctx) if (bucket := parse_bucket(scheme.collection, scheme.every, name)))


def needed_buckets(database: Db, scheme: Scheme) -> dict[Bucket, int]:
    """Return the buckets of the documents that are still in the collection, with how many go into each."""
    start = {"$dateTrunc": {"date": f"${scheme.field}", "unit": scheme.every.value}}
    pipeline: list[Document] = [
        {"$match": scheme.movable},
        {"$group": {"_id": start, "documents": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    with driver_errors():
        found = list(database[scheme.collection].aggregate(pipeline, allowDiskUse=True))
    return {bucket_of(scheme.collection, scheme.every, _aware(group["_id"])): group["documents"] for group in found}


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
