"""Check a data map against the validators of the live database, before anything runs."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import bson
from bson import Binary, Decimal128, Int64, ObjectId
from bson.codec_options import CodecOptions

from compliance.datamap.model import DataMap
from compliance.datamap.rule import Update

_BSON_NAMES: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("bool",),
    int: ("int", "number"),
    Int64: ("long", "number"),
    float: ("double", "number"),
    Decimal128: ("decimal", "number"),
    ObjectId: ("objectId",),
    Binary: ("binData",),
    bytes: ("binData",),
    datetime: ("date",),
    list: ("array",),
    dict: ("object",),
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
        field_schema = _schema_at(schema, path)
        wanted = field_schema.get("bsonType")
        allowed = (wanted,) if isinstance(wanted, str) else tuple(wanted or ())
        if allowed and not set(_BSON_NAMES.get(_stored_type(value), ())) & set(allowed):
            yield f"on_erase sets {path} to a value that is not {' or '.join(allowed)}, as its validator demands"
        if value not in field_schema.get("enum", (value,)):
            yield f"on_erase sets {path} to a value that is not in the enum of its validator"


def _stored_type(value: Any) -> type:
    """A number is an ``int`` or a ``long`` by its size."""
    return type(bson.decode(bson.encode({"": value}), CodecOptions(tz_aware=True))[""])


def _schema_at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for part in path.split(".") if path else ():
        schema = schema.get("properties", {}).get(part, {})
    return schema
