"""What a validator would refuse is said before anything runs."""

from typing import Any

import pytest
import yaml

from compliance.datamap.lint import impossible_actions
from compliance.datamap.model import DataMap, load_data_map
from compliance.settings import DATA_MAP, MIGRATIONS
from migrations.discovery import discover


def map_with(on_erase: dict[str, Any]) -> DataMap:
    content = yaml.safe_load(DATA_MAP.read_text())
    content.pop("consent_types")
    content["collections"] = {
        "notes": [{"locate": {"path": "who", "key": "user_id"}, "on_erase": {"action": "update", **on_erase}}]
    }
    return DataMap.model_validate(content)


SCHEMA = {
    "required": ["who", "title"],
    "properties": {
        "who": {"bsonType": "objectId"},
        "title": {"bsonType": "string", "enum": ["a", "[erased]"]},
        "at": {"bsonType": ["date", "null"]},
        "count": {"bsonType": "int"},
        "large": {"bsonType": "long"},
        "any": {"bsonType": "number"},
        "list": {"bsonType": "array"},
        "object": {"bsonType": "object", "required": ["inner"], "properties": {"inner": {"bsonType": "bool"}}},
        "raw": {"bsonType": "binData"},
        "price": {"bsonType": "decimal"},
    },
}
OID = {"$oid": "0" * 24}


@pytest.mark.parametrize(
    "values",
    [
        {"title": "[erased]"},
        {"at": {"$date": "1970-01-01T00:00:00Z"}},
        {"at": None},
        {"count": 0},
        {"large": {"$numberLong": "5"}},
        {"large": 2**40},
        {"any": 1.5},
        {"any": 2},
        {"list": []},
        {"object": {"inner": True}},
        {"object.inner": False},
        {"raw": {"$uuid": "c8edabc3-f738-4ca3-b68d-ab92a91478a3"}},
        {"raw": {"$binary": {"base64": "AA==", "subType": "00"}}},
        {"price": {"$numberDecimal": "1.5"}},
        {"undeclared": 1},
    ],
)
def test_what_the_validator_allows_is_no_fault(values: dict[str, Any]) -> None:
    assert list(impossible_actions(map_with({"set": {"who": OID, **values}}), {"notes": SCHEMA})) == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"who": "erased"}, "who to a value that is not objectId"),
        ({"who": OID, "title": "x"}, "title to a value that is not in the enum"),
        ({"who": OID, "at": 0}, "at to a value that is not date or null"),
        ({"who": OID, "count": 2**40}, "count to a value that is not int"),
        ({"who": OID, "large": 5}, "large to a value that is not long"),
        ({"who": OID, "object.inner": 1}, "object.inner to a value that is not bool"),
    ],
)
def test_a_value_that_the_validator_refuses_is_a_fault(values: dict[str, Any], fault: str) -> None:
    (found,) = impossible_actions(map_with({"set": values}), {"notes": SCHEMA})

    assert found.startswith(f"notes: on_erase sets {fault}")


@pytest.mark.parametrize("path", ["title", "object.inner"])
def test_a_required_field_cannot_be_unset(path: str) -> None:
    faults = list(impossible_actions(map_with({"set": {"who": OID}, "unset": [path]}), {"notes": SCHEMA}))

    assert faults == [f"notes: on_erase unsets {path}, which its validator requires"]


def test_a_collection_without_validator_takes_everything() -> None:
    data_map = map_with({"set": {"who": 1}, "unset": ["title"]})

    assert list(impossible_actions(data_map, {})) == list(impossible_actions(data_map, {"notes": {}})) == []


def test_the_reference_map_fits_the_validators_of_the_reference_domain() -> None:
    schemas: dict[str, Any] = {}
    for revision in discover(MIGRATIONS):
        schemas |= revision.up.__globals__.get("SCHEMAS", {})

    assert set(schemas) >= set(load_data_map(DATA_MAP).collections)
    assert list(impossible_actions(load_data_map(DATA_MAP), schemas)) == []
