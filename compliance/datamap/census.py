"""Look at samples of the live database for what the data map does not say: paths, and values that look personal.

A read-only operation. A value is looked at and forgotten; what is told are paths, patterns and counts. The same seed
reads the same documents of the same database: where every ``_id`` is an ObjectId, blocks that are spread over the time
from the oldest to the youngest; elsewhere the oldest and the youngest half. Memory grows with the number of paths, not
of documents, and of those there are no more than ``MOST_PATHS`` for a collection.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from bson import ObjectId

from compliance.datamap.model import DataMap
from compliance.datamap.paths import declaring, fields_of, is_closed, is_declared, walk
from compliance.datamap.patterns import Pattern, patterns_in
from compliance.mongo import Db, Document, driver_errors
from compliance.roles import PRE_IMAGES

SAMPLE_DOCS = 1000
BLOCK_DOCS = 20
MOST_PATHS = 2000
UNDECLARED = "undeclared"
UNKNOWN = "not in the map"
_ID_BITS = 96


@dataclass(frozen=True, slots=True, order=True)
class Sighting:
    """Something that the map does not say.

    Attributes:
        path: Empty for the collection itself.
        what: ``undeclared``, ``not in the map``, or a pattern.
    """

    collection: str
    path: str
    what: str

    @property
    def name(self) -> str:
        """How a baseline names it."""
        return f"{self.collection}:{self.path}:{self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of a collection was looked at."""

    documents: int
    looked_at: int
    paths: int
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What was seen.

    Attributes:
        sightings: In how many documents each was, in order.
    """

    sightings: Mapping[Sighting, int]
    coverage: Mapping[str, Coverage]


@dataclass(slots=True)
class _Tally:
    """Counts of one collection."""

    collection: str
    data_map: DataMap
    paths: set[str] = field(default_factory=set)
    seen: dict[Sighting, int] = field(default_factory=dict)
    documents: int = 0
    is_cut: bool = False

    def add(self, document: Mapping[str, Any]) -> None:
        """Count what *document* shows, each thing once."""
        self.documents += 1
        fields, shown = fields_of(self.collection, self.data_map), set[Sighting]()
        closed = is_closed(self.collection, self.data_map)
        if fields is None:
            shown.add(Sighting(self.collection, "", UNKNOWN))
        for path, value in walk(document):
            if path not in self.paths:
                if len(self.paths) >= MOST_PATHS:
                    self.is_cut = True
                    continue
                self.paths.add(path)
            if closed and not is_declared(path, value, fields or {}):
                shown.add(Sighting(self.collection, path, UNDECLARED))
            known = declaring(path, fields or {})
            if known is None or not known.is_personal:
                shown |= {Sighting(self.collection, path, found.value) for found in patterns_in(value)}
        for sighting in shown:
            self.seen[sighting] = self.seen.get(sighting, 0) + 1


def take_census(
    database: Db,
    data_map: DataMap,
    *,
    sample: int = SAMPLE_DOCS,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Census:
    """Look at *sample* documents of each collection of *database*, all of it where it has no more.

    *check* is called for each collection, and may end the census by an error.
    """
    with driver_errors():
        listed = [info for info in database.list_collections() if info["type"] != "view"]
    sightings: dict[Sighting, int] = {}
    coverage: dict[str, Coverage] = {}
    for info in sorted(listed, key=lambda one: str(one["name"])):
        name = info["name"]
        if name.startswith("system.") or name == PRE_IMAGES:
            continue
        check()
        tally = _Tally(name, data_map)
        with driver_errors():
            documents = database[name].estimated_document_count()
            for document in _sample(database, name, sample, seed, is_series=info["type"] == "timeseries"):
                tally.add(document)
        sightings |= tally.seen
        coverage[name] = Coverage(
            documents=max(documents, tally.documents),
            looked_at=tally.documents,
            paths=len(tally.paths),
            is_cut=tally.is_cut,
        )
    return Census(sightings=dict(sorted(sightings.items())), coverage=coverage)


def _sample(database: Db, name: str, size: int, seed: int, *, is_series: bool) -> Iterator[Document]:
    collection = database[name]
    if is_series:
        yield from collection.find().limit(size)
        return
    youngest = collection.find_one({}, {"_id": 1}, sort=[("_id", -1)])
    oldest = collection.find_one({}, {"_id": 1}, sort=[("_id", 1)])
    if oldest is None or youngest is None:
        return
    if len(list(collection.find({}, {"_id": 1}).sort("_id", 1).limit(size + 1))) <= size:
        yield from collection.find()
    elif isinstance(oldest["_id"], ObjectId) and isinstance(youngest["_id"], ObjectId):
        yield from _blocks(database, name, size, _places(oldest["_id"], youngest["_id"], size, seed))
    else:
        yield from collection.find().sort("_id", 1).limit(size - size // 2)
        yield from collection.find().sort("_id", -1).limit(size // 2)


def _places(oldest: ObjectId, youngest: ObjectId, size: int, seed: int) -> list[ObjectId]:
    """Return where blocks begin: the oldest, and one in each equal part of the ids up to the youngest."""
    rng = random.Random(seed)  # noqa: S311 - a sample, no secret
    low, high = (int.from_bytes(id_.binary) for id_ in (oldest, youngest))
    parts = max(1, size // BLOCK_DOCS)
    part = (high - low) // parts
    places = [low + part * number + rng.randrange(part + 1) for number in range(1, parts)]
    return [oldest, *(ObjectId(place.to_bytes(_ID_BITS // 8)) for place in places)]


def _blocks(database: Db, name: str, size: int, places: Iterable[ObjectId]) -> Iterator[Document]:
    """Yield up to *size* documents, none twice: those behind each place, then the youngest where these were too few."""
    seen: set[ObjectId] = set()
    found = (
        document
        for place in places
        for document in database[name].find({"_id": {"$gte": place}}).sort("_id", 1).limit(BLOCK_DOCS)
    )
    for document in chain(found, database[name].find().sort("_id", -1).limit(size)):
        if len(seen) < size and document["_id"] not in seen:
            seen.add(document["_id"])
            yield document


def suggest(sighting: Sighting) -> str:
    """Return what to paste into the map."""
    if sighting.what == UNKNOWN:
        return f"{sighting.collection}: {{closed: true, rules: [], fields: {{}}}}"
    category = _CATEGORIES.get(sighting.what, "...")
    return f"{sighting.path}: {{categories: [{category}]}}"


_CATEGORIES: dict[str, str] = {
    Pattern.EMAIL: "user.contact.email",
    Pattern.PHONE: "user.contact.phone_number",
    Pattern.IBAN: "user.financial.bank_account",
    Pattern.CARD: "user.financial.credit_card",
    Pattern.IP: "user.device.ip_address",
    Pattern.JWT: "user.authorization.credentials",
}
