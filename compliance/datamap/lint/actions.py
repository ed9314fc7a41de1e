"""Actions that the server would refuse: against a validator, a unique index, or the type of a field."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import bson
from bson import Binary, Decimal128, Int64, ObjectId
from bson.codec_options import CodecOptions

from compliance.datamap.catalogue import Held, Index
from compliance.datamap.lint.rule import Case, Fault, rule
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
    case = Case(data_map, {name: Held(schema=schema) for name, schema in schemas.items()})
    for look in (unset_of_required, set_to_another_type, set_outside_the_enum):
        yield from (f"{fault.place.split('.')[1]}: {fault.why}" for fault in look(case))


def _updates(case: Case) -> Iterator[tuple[str, Update, Held]]:
    for placed in case.rules():
        if isinstance(placed.rule.on_erase, Update):
            yield f"{placed.place}.on_erase", placed.rule.on_erase, case.held(placed.collection)


def _set_values(case: Case) -> Iterator[tuple[str, str, Any, Mapping[str, Any]]]:
    """Yield place, path, value and schema of all that is set; a relabelled path gets the tombstone."""
    for place, action, held in _updates(case):
        for path, value in action.set.items():
            yield f"{place}.set", path, value, schema_at(held.schema, path)
        for path in action.relabel:
            yield f"{place}.relabel", path, case.data_map.subject.tombstone, schema_at(held.schema, path)


@rule("DM001")
def unset_of_required(case: Case) -> Iterator[Fault]:
    """A field is unset that the validator requires."""
    for place, action, held in _updates(case):
        for path in action.unset:
            parent, _, field = path.rpartition(".")
            if field in schema_at(held.schema, parent).get("required", ()):
                yield Fault(
                    f"{place}.unset",
                    f"on_erase unsets {path}, which its validator requires",
                    f'set: {{{path}: "[erased]"}}',
                )


@rule("DM002")
def set_to_another_type(case: Case) -> Iterator[Fault]:
    """A field is set to a value of a BSON type that the validator refuses."""
    for place, path, value, schema in _set_values(case):
        allowed = types_of(schema)
        if allowed and not set(_names_of(value)) & set(allowed):
            yield Fault(
                place,
                f"on_erase sets {path} to a value that is not {' or '.join(allowed)}, as its validator demands",
                f"set: {{{path}: {_EXAMPLES.get(allowed[0], '...')}}}",
            )


@rule("DM003")
def set_outside_the_enum(case: Case) -> Iterator[Fault]:
    """A field is set to a value that is not in the enum of the validator."""
    for place, path, value, schema in _set_values(case):
        if value not in schema.get("enum", (value,)):
            yield Fault(
                place,
                f"on_erase sets {path} to a value that is not in the enum of its validator",
                f"set: {{{path}: {schema['enum'][0]}}}",
            )


@rule("DM004")
def constant_in_a_unique_index(case: Case) -> Iterator[Fault]:
    """A field of a unique index gets the same value for every person: the second erasure would fail."""
    for place, action, held in _updates(case):
        for index in held.indexes:
            path = _made_equal(action, index)
            if path is not None:
                yield Fault(
                    place,
                    f"on_erase makes {path} the same for everybody, and {index.name} is unique: "
                    "the erasure of a second person would fail",
                    "on_erase: {action: delete}",
                )


def _made_equal(action: Update, index: Index) -> str | None:
    """Return the path of *index* that gets the same value in each document; None where documents still differ."""
    if not index.is_unique or "_id" in index.keys:
        return None
    unset = [key for key in index.keys if key in action.unset]
    if any(path in action.unset for path in index.covers):  # the document leaves a partial index
        return None
    if index.is_sparse and len(unset) == len(index.keys):
        return None
    constant = (*action.set, *action.relabel, *action.unset)
    return next((key for key in index.keys if key in constant), None)


@rule("DM005")
def field_of_another_type(case: Case) -> Iterator[Fault]:
    """The map gives a field types that the validator refuses."""
    for name, collection in case.data_map.collections.items():
        schema = case.held(name).schema
        for path, field in collection.fields.items() if name not in case.buckets else ():
            said = {field.type} if isinstance(field.type, str) else set(field.type)
            allowed = types_of(schema_at(schema, path)) if "[]" not in path and "{}" not in path else ()
            if said and allowed and not said & {*allowed, *(_NUMBERS if "number" in allowed else ())}:
                yield Fault(
                    f"collections.{name}.fields.{path}",
                    f"the map says that {path} is {' or '.join(sorted(said))}, its validator that it is "
                    f"{' or '.join(allowed)}",
                    f"{path}: {{type: {allowed[0]}}}",
                )


_NUMBERS = ("int", "long", "double", "decimal")
_EXAMPLES = {
    "objectId": '{$oid: "000000000000000000000000"}',
    "string": '"[erased]"',
    "date": '{$date: "1970-01-01T00:00:00Z"}',
    "long": '{$numberLong: "0"}',
    "int": "0",
    "bool": "false",
    "array": "[]",
    "object": "{}",
    "null": "null",
}


def types_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the BSON types that *schema* allows; empty where it allows all."""
    wanted = schema.get("bsonType")
    return (wanted,) if isinstance(wanted, str) else tuple(wanted or ())


def _names_of(value: Any) -> tuple[str, ...]:
    """A number is an ``int`` or a ``long`` by its size."""
    stored: type = type(bson.decode(bson.encode({"": value}), CodecOptions(tz_aware=True))[""])
    return _BSON_NAMES.get(stored, ())


def schema_at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return what *schema* says of *path*, a dotted one without arrays."""
    for part in path.split(".") if path else ():
        schema = schema.get("properties", {}).get(part, {})
    return schema
