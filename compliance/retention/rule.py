"""Decide which documents are too old for all that they were stored for; pure.

A document stays as long as one purpose that it serves still needs it, so of several the longest counts. A date that is
missing, or is no date, proves no age: such a document is reported and not touched.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from compliance.datamap.collection import Kind
from compliance.datamap.model import CHUNKS, DataMap
from compliance.datamap.order import children_first
from compliance.datamap.rule import Edge

Filter = dict[str, Any]
# Evidence, or what ends by itself.
NEVER = ("audit_log", "compliance_pre_images", "consent_events", "consent_history")
PASSES_ON = (Edge.DEEP, Edge.OWNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One purpose of documents, and until when it needs them.

    Attributes:
        age_of: The path of the date from which the age counts.
        where: Which documents serve the purpose.
        period: How long it needs them, as the map says it.
        before: Documents dated then, or earlier, are needed no more.
    """

    purpose: str
    age_of: str
    where: Mapping[str, Any]
    period: str
    before: datetime

    @property
    def over(self) -> Filter:
        """Return the condition that the purpose needs the document no more; the first part is for an index."""
        return {"$and": [{self.age_of: {"$lte": self.before}}, {"$expr": {"$eq": [self.type_of_age, "date"]}}]}

    @property
    def undated(self) -> Filter:
        """Return the condition that the document serves the purpose, and its age is not known."""
        return {"$and": [dict(self.where), {"$expr": {"$ne": [self.type_of_age, "date"]}}]}

    @property
    def type_of_age(self) -> Filter:
        """Return the expression of the BSON type of the date: ``array`` where any part of the path is one."""
        return {"$type": f"${self.age_of}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What is said of the age of documents of one collection.

    Attributes:
        chunks: The collection whose documents go with them, by ``files_id``; of GridFS only.
        parents: What documents refer to, ``(path, collection)``: whose they are, their parents say.
        children: What refers to documents by ``_id``, ``(collection, path)``: without them nobody could tell whose
            those are, so they stay until those are gone.
        refusal: Why none of them goes; None where they may.
    """

    collection: str
    clauses: tuple[Clause, ...]
    chunks: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    children: tuple[tuple[str, str], ...] = field(default=())
    refusal: str | None = None

    @property
    def due(self) -> Filter:
        """Return the query of what is needed no more by any purpose that it serves."""
        everything = any(not clause.where for clause in self.clauses)
        some = [] if everything else [{"$or": [dict(clause.where) for clause in self.clauses]}]
        return {"$and": [*some, *map(_unneeded, self.clauses)]}


def _unneeded(clause: Clause) -> Filter:
    return {"$or": [{"$nor": [dict(clause.where)]}, clause.over]} if clause.where else clause.over


def compile_expiries(data_map: DataMap, *, now: datetime) -> tuple[Expiry, ...]:
    """Return what *data_map* says of the age of documents at *now*; what refers to others comes before those.

    Raises:
        ConfigurationError: When collections of the map refer to each other in a circle.
    """
    return tuple(
        _to_expiry(name, collection, data_map, now=now)
        for collection in children_first(data_map)
        if data_map.collections[collection].retention
        for name in _twins(collection, data_map)
    )


def parents_of(collection: str, data_map: DataMap) -> tuple[tuple[str, str], ...]:
    """Return what documents of *collection* refer to, as ``(path, collection)``; of old versions, too."""
    suffix = data_map.history.suffix if data_map.history else ""
    own = collection if collection in data_map.collections else collection.removesuffix(suffix)
    rules = data_map.rules_of(own)
    return tuple(dict.fromkeys((rule.locate.path, rule.locate.of) for rule in rules if rule.locate.of is not None))


def _to_expiry(name: str, collection: str, data_map: DataMap, *, now: datetime) -> Expiry:
    declared, clauses = data_map.collections[collection], []
    for one in declared.retention:
        period = data_map.purposes[one.purpose].retention
        if period is not None:
            before = period.before(now)
            clauses.append(
                Clause(purpose=one.purpose, age_of=one.age_of, where=one.where, period=str(period), before=before)
            )
    chunks = f"{name.removesuffix('.files')}{CHUNKS}" if declared.kind is Kind.GRIDFS else None
    return Expiry(
        collection=name,
        clauses=tuple(clauses),
        chunks=chunks,
        parents=parents_of(collection, data_map),
        children=tuple(child for child in _children(name, data_map) if child[0] != chunks),
        refusal=_refusal(name, declared.kind, data_map),
    )


def _refusal(name: str, kind: Kind, data_map: DataMap) -> str | None:
    if name in NEVER:
        return "it is evidence, or ends by itself"
    if name == data_map.subject.collection:
        return "its documents are the people themselves, who are erased by requests"
    if kind is Kind.VIEW:
        return "a view stores nothing: give the retention to what it reads"
    if kind is Kind.TIME_SERIES:
        return "of a time series nothing goes by age but with its own expireAfterSeconds"
    return None


def _children(name: str, data_map: DataMap) -> Iterator[tuple[str, str]]:
    """Yield what refers to the documents of the collection *name* where it is what makes them somebody's."""
    if not any(rule.locate.edge in PASSES_ON for rule in data_map.rules_of(name)):
        return
    for other, rule in data_map.rules():
        if rule.locate.of == name:
            for twin in _twins(other, data_map):
                yield twin, rule.locate.path.replace("[]", "")


def _twins(collection: str, data_map: DataMap) -> tuple[str, ...]:
    return (collection, collection + data_map.history.suffix) if data_map.history else (collection,)
