"""What a sweep would remove, before it does: counted in the live database, which is not changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.mongo import Databases, Document, driver_errors
from compliance.retention.held import HeldPeople, raw_documents
from compliance.retention.rule import Clause, Expiry, compile_expiries

PAGE = 500
NO_INDEX = "none: the whole collection is read"
MISSING = ("missing", "null", "undefined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What would become of one collection.

    Attributes:
        rules: The purposes as sentences.
        documents: How many would go, those of people under a legal hold among them.
        held: How many of these stay because of a legal hold.
        oldest: The date of the oldest that would go.
        index: What finds them, or that nothing does.
        undated: How many have no date, so that nobody knows their age; they stay.
        wrong_type: How many have something else where the date should be, by its BSON type; they stay.
        ttl: Indexes of the collection by which the server removes documents itself, without an entry.
        refusal: Why none goes.
    """

    collection: str
    rules: tuple[str, ...]
    documents: int = 0
    held: int = 0
    oldest: datetime | None = None
    index: str = NO_INDEX
    undated: int = 0
    wrong_type: Mapping[str, int] = field(default_factory=dict)
    ttl: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should look at, as sentences with names and counts."""
        found = []
        if self.refusal:
            found.append(f"{self.collection}: nothing of it goes: {self.refusal}")
        if self.undated:
            found.append(f"{self.collection}: {self.undated} documents have no date, so they stay")
        for kind, count in sorted(self.wrong_type.items()):
            found.append(f"{self.collection}: {count} documents have a value of type {kind} for their date; they stay")
        found.extend(f"{self.collection}: {index}" for index in self.ttl)
        return tuple(found)


def plan_retention(
    databases: Databases,
    data_map: DataMap,
    *,
    now: datetime,
    pseudonyms: Pseudonyms | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Planned, ...]:
    """Return what a sweep at *now* would do to each collection for which the map states a retention, and is there.

    *check* is called while much is read, and may end it by an error.

    Raises:
        ConfigurationError: When a legal hold is on a person whom this process cannot recognise.
    """
    people = HeldPeople(databases=databases, data_map=data_map, pseudonyms=pseudonyms, check=check)
    people.refresh(now=now)
    return tuple(_plan(expiry, databases, people) for expiry in present(compile_expiries(data_map, now=now), databases))


def present(expiries: tuple[Expiry, ...], databases: Databases) -> Iterator[Expiry]:
    """Yield those whose collection is there."""
    with driver_errors():
        names = set(databases.app.list_collection_names())
    yield from (expiry for expiry in expiries if expiry.collection in names)


def _plan(expiry: Expiry, databases: Databases, people: HeldPeople) -> Planned:
    rules = tuple(map(_sentence, expiry.clauses))
    if expiry.refusal is not None:
        return Planned(collection=expiry.collection, rules=rules, refusal=expiry.refusal)
    collection = databases.app[expiry.collection]
    with driver_errors():
        documents, oldest = _count(collection, expiry)
        by_type = _undated(collection, expiry)
        return Planned(
            collection=expiry.collection,
            rules=rules,
            documents=documents,
            held=_held(expiry, databases, people) if documents else 0,
            oldest=oldest,
            index=_index(collection, expiry),
            undated=sum(count for kind, count in by_type.items() if kind in MISSING),
            wrong_type={kind: count for kind, count in by_type.items() if kind not in MISSING},
            ttl=tuple(_ttl(collection, expiry)),
        )


def _sentence(clause: Clause) -> str:
    narrowed = " of some documents" if clause.where else ""
    return (
        f"{clause.purpose}: {clause.period} from {clause.age_of}{narrowed}, so dated {clause.before:%Y-%m-%d} or before"
    )


def _count(collection: Collection[Document], expiry: Expiry) -> tuple[int, datetime | None]:
    dates = [{"$cond": [{"$eq": [clause.type_of_age, "date"]}, f"${clause.age_of}", None]} for clause in expiry.clauses]
    counted = {"_id": None, "documents": {"$sum": 1}, "oldest": {"$min": {"$min": dates}}}
    stages: list[Document] = [{"$match": expiry.due}, {"$group": counted}]
    found = next(iter(collection.aggregate(stages)), None)
    return (found["documents"], found["oldest"]) if found else (0, None)


def _undated(collection: Collection[Document], expiry: Expiry) -> dict[str, int]:
    """Count documents that serve a purpose and have no date for it, by what they have instead; each counts once."""
    counts: dict[str, int] = {}
    seen: list[Document] = []
    for clause in expiry.clauses:
        stages: list[Document] = [
            {"$match": {"$and": [clause.undated, *({"$nor": [other]} for other in seen)]}},
            {"$group": {"_id": clause.type_of_age, "documents": {"$sum": 1}}},
        ]
        for found in collection.aggregate(stages):
            counts[found["_id"]] = counts.get(found["_id"], 0) + found["documents"]
        seen.append(clause.undated)
    return counts


def _held(expiry: Expiry, databases: Databases, people: HeldPeople) -> int:
    documents = raw_documents(databases.app, expiry.collection, expiry.due)
    held = 0
    while page := list(islice(documents, PAGE)):
        people.check()
        held += len(people.among(expiry.collection, page))
    return held


def _index(collection: Collection[Document], expiry: Expiry) -> str:
    command = {"find": collection.name, "filter": expiry.due}
    explained = collection.database.command("explain", command, verbosity="queryPlanner")
    names = sorted(set(_names(explained["queryPlanner"]["winningPlan"])))
    return ", ".join(names) or NO_INDEX


def _names(stage: Any) -> Iterator[str]:
    if isinstance(stage, Mapping):
        if stage.get("stage") == "IXSCAN":
            yield str(stage["indexName"])
        for inner in stage.values():
            yield from _names(inner)
    elif isinstance(stage, list):
        for inner in stage:
            yield from _names(inner)


def _ttl(collection: Collection[Document], expiry: Expiry) -> Iterator[str]:
    """Yield the indexes by which the server removes documents itself, where their date is one of ours."""
    ages = {clause.age_of for clause in expiry.clauses}
    with suppress(OperationFailure):  # dropped meanwhile
        for name, found in collection.index_information().items():
            if "expireAfterSeconds" in found and found["key"][0][0] in ages:
                yield (
                    f"the index {name} lets the server remove documents after {int(found['expireAfterSeconds'])} s, "
                    "without an entry in the audit log, and without regard to legal holds"
                )
