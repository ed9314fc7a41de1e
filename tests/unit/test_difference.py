"""What a document was, field by field: only what changed, and exactly put back."""

from typing import Any

import pytest
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from migrations.ops.difference import Before, Unnameable, changes, digest, way_back

NAMES = st.text("abc", min_size=1, max_size=2)
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1, width=16) | st.lists(st.integers(0, 2))
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)


def applied(document: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """What an update makes of a document, by another hand than the server's."""
    changed = copied(document)
    for path, value in [*update.get("$set", {}).items(), *((path, None) for path in update.get("$unset", {}))]:
        *parents, last = path.split(".")
        inside = changed
        for part in parents:
            inside = inside[part]
        if path in update.get("$unset", {}):
            del inside[last]
        else:
            inside[last] = value
    return changed


def copied(value: Any) -> Any:
    return {name: copied(inner) for name, inner in value.items()} if isinstance(value, dict) else value


@given(before=DOCUMENTS, after=DOCUMENTS)
def test_the_way_back_makes_of_the_new_document_the_old_one(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert applied(after, way_back(changes(before, after))) == before


@given(before=DOCUMENTS, after=DOCUMENTS)
def test_no_field_is_named_that_is_the_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    paths = [was.path for was in changes(before, after)]

    assert all(digest(before, [path]) != digest(after, [path]) for path in paths)


def test_only_what_changed_inside_of_a_document_is_named() -> None:
    before = {"_id": 1, "home": {"city": "Ulm", "zip": "1"}, "tags": [1], "old": True}
    after = {"_id": 1, "home": {"city": "Ulm", "zip": "2"}, "tags": [1, 2], "new": 1}

    assert changes(before, after) == (
        Before("home.zip", "1"),
        Before("new", is_there=False),
        Before("old", True),
        Before("tags", [1]),
    )


def test_a_number_of_another_type_is_another_value() -> None:
    assert changes({"n": 1}, {"n": 1.0}) == (Before("n", 1),)
    assert digest({"n": 1}, ["n"]) != digest({"n": Int64(1)}, ["n"])


def test_a_field_that_is_missing_is_not_one_that_is_null() -> None:
    assert changes({"n": None}, {}) == (Before("n", None),)
    assert changes({}, {"n": None}) == (Before("n", is_there=False),)
    assert digest({"n": None}, ["n"]) != digest({}, ["n"])
    assert Before.from_document(Before("n", None).to_document()) == Before("n", None)
    assert Before.from_document(Before("n", is_there=False).to_document()) == Before("n", is_there=False)


@pytest.mark.parametrize("name", ["a.b", "$a", ""])
def test_names_that_no_path_can_hold_count_with_the_document_around_them(name: str) -> None:
    assert changes({"x": {name: 1, "y": 1}}, {"x": {name: 2, "y": 2}}) == (Before("x", {name: 1, "y": 1}),)
    with pytest.raises(Unnameable):
        changes({name: 1}, {name: 2})
    assert changes({name: 1, "y": 1}, {name: 1, "y": 2}) == (Before("y", 1),)


def test_documents_that_differ_in_the_order_of_their_fields_differ() -> None:
    assert changes({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}) == (Before("x", {"a": 1, "b": 2}),)
