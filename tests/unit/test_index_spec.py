"""A declared index is known again in what a server lists of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from compliance.health.index_spec import conflicts, differences, keys_of, options_of

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
FULL_COLLATION = {"locale": "de", "caseLevel": False, "strength": 2, "version": "57.1"}


def listed(key: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"v": 2, "key": key, "name": "ix", **options}


TEXT = listed({"_fts": "text", "_ftsx": 1, "g": 1}, weights={"s": 1, "t": 1}, default_language="english")
SAME: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    ([("a", 1)], {}, listed({"a": 1})),
    ([("a", 1)], {}, listed({"a": 1.0}, hidden=True, prepareUnique=True)),
    ([("a", 1)], {"unique": True}, listed({"a": 1}, unique=True)),
    ([("a", 1)], {"unique": False, "sparse": False}, listed({"a": 1})),
    ([("a", 1)], {"expireAfterSeconds": 60}, listed({"a": 1}, expireAfterSeconds=60.0)),
    ([("a", 1)], {"collation": {"locale": "de", "strength": 2}}, listed({"a": 1}, collation=FULL_COLLATION)),
    ([("a", 1)], {"collation": {"locale": "simple"}}, listed({"a": 1})),
    ([("a", 1)], {}, listed({"a": 1}, collation=FULL_COLLATION)),  # the default of its collection
    (
        [("a", 1)],
        {"partialFilterExpression": {"a": {"$gt": SINCE}}},
        listed({"a": 1}, partialFilterExpression={"a": {"$gt": SINCE}}),
    ),
    ([("s", "text"), ("t", "text"), ("g", 1)], {}, TEXT),
    ([("l", "2dsphere")], {}, listed({"l": "2dsphere"}, **{"2dsphereIndexVersion": 3})),
]


@pytest.mark.parametrize(("keys", "options", "observed"), SAME)
def test_what_the_server_adds_is_no_difference(keys: Any, options: dict[str, Any], observed: dict[str, Any]) -> None:
    assert differences(keys, options, observed) == ()
    assert conflicts(keys, options, observed) or "collation" in observed


DIFFERENT: list[tuple[Any, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ([("a", 1)], {}, listed({"a": -1}), ("key",)),
    ([("a", 1), ("b", 1)], {}, listed({"b": 1, "a": 1}), ("key",)),
    ([("a", 1)], {}, listed({"a": 1, "b": 1}), ("key",)),
    ([("a", 1)], {}, listed({"a": 1}, unique=True), ("unique",)),
    ([("a", 1)], {"unique": True}, listed({"a": 1}), ("unique",)),
    ([("a", 1)], {}, listed({"a": 1}, sparse=True), ("sparse",)),
    ([("a", 1)], {}, listed({"a": 1}, expireAfterSeconds=0), ("expireAfterSeconds",)),
    ([("a", 1)], {"expireAfterSeconds": 60}, listed({"a": 1}, expireAfterSeconds=61), ("expireAfterSeconds",)),
    ([("a", 1)], {}, listed({"a": 1}, partialFilterExpression={"b": 1}), ("partialFilterExpression",)),
    ([("a", 1)], {"collation": {"locale": "fr"}}, listed({"a": 1}, collation=FULL_COLLATION), ("collation",)),
    ([("a", 1)], {"collation": {"locale": "de"}}, listed({"a": 1}), ("collation",)),
    ([("a", 1)], {"collation": {"locale": "simple"}}, listed({"a": 1}, collation=FULL_COLLATION), ("collation",)),
    ([("s", "text"), ("g", 1)], {}, TEXT, ("weights",)),
    ([("s", "text"), ("t", "text"), ("g", 1)], {"weights": {"s": 5}}, TEXT, ("weights",)),
    ([("s", "text"), ("t", "text"), ("g", 1)], {"default_language": "german"}, TEXT, ("default_language",)),
]


@pytest.mark.parametrize(("keys", "options", "observed", "expected"), DIFFERENT)
def test_what_changes_the_meaning_is_named(
    keys: Any, options: dict[str, Any], observed: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert differences(keys, options, observed) == expected


@pytest.mark.parametrize(
    ("options", "observed", "expected"),
    [
        ({}, listed({"a": 1}), True),
        ({}, listed({"a": 1}, expireAfterSeconds=1), True),
        ({}, listed({"a": 1}, collation=FULL_COLLATION), False),
        ({}, listed({"a": 1}, partialFilterExpression={"b": 1}), False),
        ({"unique": True}, listed({"a": 1}), True),
        ({"sparse": True}, listed({"a": 1}), False),
        ({}, listed({"b": 1}), False),
    ],
)
def test_the_same_keys_conflict_unless_they_mean_something_else(
    options: dict[str, Any], observed: dict[str, Any], *, expected: bool
) -> None:
    assert conflicts([("a", 1)], options, observed) is expected


def test_two_text_indexes_conflict_whatever_their_fields() -> None:
    assert conflicts([("other", "text")], {}, TEXT)
    assert not conflicts([("other", 1)], {}, TEXT)


@pytest.mark.parametrize(("keys", "options", "observed"), SAME)
def test_what_is_there_can_be_declared_as_it_is(keys: Any, options: dict[str, Any], observed: dict[str, Any]) -> None:
    found = {**options_of(observed), "unique": observed.get("unique", False)}

    assert differences(keys_of(observed), found, observed) == ()
