"""Read what a live database holds of the collections of a data map; a read-only operation.

Of documents only the types at the locators are read: of the oldest and of the youngest, so that a change of shape over
time is seen, and the same ones each time.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bson import Binary, Int64, ObjectId

from compliance.datamap.catalogue import Catalogue, Held, Index
from compliance.datamap.form import parts_of
from compliance.datamap.model import DataMap
from compliance.datamap.paths import values_along
from compliance.mongo import Db, Document, driver_errors

SAMPLE_DOCS = 200
_UUID_SUBTYPES = (3, 4)
_NAMES: Mapping[type, str] = {
    type(None): "null",
    bool: "bool",
    ObjectId: "objectId",
    str: "string",
    int: "long",  # a query compares numbers by their value
    Int64: "long",
}


def read_catalogue(database: Db, data_map: DataMap, *, sample: int = SAMPLE_DOCS) -> Catalogue:
    """Return every collection of *database*; those of the map with their indexes and types, from *sample* documents."""
    with driver_errors():
        listed = {info["name"]: info for info in database.list_collections()}
    suffix = data_map.history.suffix if data_map.history else ""
    known = {*data_map.collections, data_map.subject.collection}
    known |= {name + suffix for name in known}
    found: dict[str, Held] = {}
    for name, info in sorted(listed.items()):
        if name.startswith("system."):
            continue
        if info["type"] == "view" or name not in known:
            found[name] = Held(kind=info["type"], reads=tuple(_reads(info["options"])))
            continue
        paths = {rule.locate.path for rule in data_map.rules_of(name.removesuffix(suffix))} | {"_id"}
        paths |= {rule.locate.path for rule in data_map.rules_of(name)}
        found[name] = _held(database, info, paths, sample)
    return found


def _held(database: Db, info: Mapping[str, Any], paths: set[str], sample: int) -> Held:
    name = info["name"]
    with driver_errors():
        return Held(
            kind=info["type"],
            documents=database[name].estimated_document_count(),
            schema=info["options"].get("validator", {}).get("$jsonSchema", {}),
            indexes=tuple(map(_index, database[name].list_indexes())),
            types=_types(_oldest_and_youngest(database, info, paths, sample), paths),
        )


def _oldest_and_youngest(database: Db, info: Mapping[str, Any], paths: set[str], sample: int) -> Iterator[Document]:
    by = "$natural" if info["type"] == "timeseries" else "_id"  # no index of a time series begins with _id
    for direction in (1, -1):
        found = database[info["name"]].find({}, _projection(paths)).sort(by, direction).limit(sample // 2)
        with found:
            yield from found


def _projection(paths: set[str]) -> dict[str, int]:
    """A field and a part of it are not asked for both: the server refuses that."""
    wanted = {".".join(parts_of(path)) for path in paths}
    return {path: 1 for path in sorted(wanted) if not any(path.startswith(f"{other}.") for other in wanted)}


def _types(documents: Iterable[Document], paths: set[str]) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {path: set() for path in paths}
    for document in documents:
        for path in paths:
            found[path].update(map(type_name, values_along(document, parts_of(path))))
    return {path: frozenset(types) for path, types in found.items()}


def type_name(value: Any) -> str:
    """Return how a map calls the BSON type of *value*."""
    if isinstance(value, Binary) and value.subtype in _UUID_SUBTYPES:
        return "uuid"
    return _NAMES.get(type(value), type(value).__name__)


def _index(spec: Mapping[str, Any]) -> Index:
    return Index(
        name=spec["name"],
        keys=tuple(spec["key"]),
        covers=tuple(spec.get("partialFilterExpression", ())),
        is_unique=bool(spec.get("unique")) or spec["name"] == "_id_",
        is_sparse=bool(spec.get("sparse")),
    )


def _reads(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the collections that a view reads, in the stages of its pipeline, too."""
    if "viewOn" in options:
        yield options["viewOn"]
        yield from _read_by(options.get("pipeline", []))


def _read_by(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _read_by(inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("$lookup", "$graphLookup") and isinstance(inner, Mapping) and "from" in inner:
                yield inner["from"]
            elif name == "$unionWith":
                yield inner if isinstance(inner, str) else inner.get("coll", "")
            yield from _read_by(inner)
