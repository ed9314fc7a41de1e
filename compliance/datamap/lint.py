"""Check a data map against the validators of the live database, before anything runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from bson import ObjectId

from compliance.datamap.model import DataMap, Update

_BSON_NAMES: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("bool",),
    int: ("int", "long", "number"),
    float: ("double", "number"),
    ObjectId: ("objectId",),
    type(None): ("null",),
}


def impossible_actions(data_map: DataMap, schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield one sentence for every action that a validator would refuse.

    Args:
        data_map: The map to check.
        schemas: The ``$jsonSchema`` of each collection that has one.
    """
    for collection, rule in data_map.rules():
        if isinstance(rule.on_erase, Update) and collection in schemas:
            yield from (f"{collection}: {fault}" for fault in _faults(rule.on_erase, schemas[collection]))


def _faults(action: Update, schema: Mapping[str, Any]) -> Iterator[str]:
    for path in action.unset:
        parent, _, field = path.rpartition(".")
        if field in _schema_at(schema, parent).get("required", ()):
            yield f"on_erase unsets {path}, which its validator requires"
    for path, value in action.set.items():
        wanted = _schema_at(schema, path).get("bsonType")
        allowed = (wanted,) if isinstance(wanted, str) else tuple(wanted or ())
        if allowed and not set(_BSON_NAMES.get(type(value), ())) & set(allowed):
            yield f"on_erase sets {path} to a value that is not {' or '.join(allowed)}, as its validator demands"


def _schema_at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for part in path.split(".") if path else ():
        schema = schema.get("properties", {}).get(part, {})
    return schema
