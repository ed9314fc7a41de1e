"""The paths of documents, and whether a map declares them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.collection import FieldOf
from compliance.datamap.model import load_data_map
from compliance.datamap.paths import declaring, fields_of, is_closed, is_declared, is_dynamic, undeclared, walk
from compliance.settings import DATA_MAP
from worker.demo.seed import seed_documents

REFERENCE = load_data_map(DATA_MAP)
FIELD = FieldOf(categories=("none",))
VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({"a": 1}, ["a"]),
        ({"a": {"b": None, "c": []}, "d": {}}, ["a.b", "a.c", "d"]),
        ({"a": [1, 2]}, ["a[]", "a[]"]),
        ({"a": [[{"b": 1}]]}, ["a[][].b"]),
        ({"a": {"507f1f77bcf86cd799439011": {"x": 1}}}, ["a{}", "a{}", "a{}"]),
        ({"a": {"ann@x.org": [1]}}, ["a{}", "a{}"]),
        ({"a": {"12": {"inner": {"x": 1}}}}, ["a{}", "a{}", "a{}", "a{}"]),
        ({"2": 1}, ["{}", "{}"]),
    ],
)
def test_a_document_is_a_list_of_paths(document: dict[str, Any], paths: list[str]) -> None:
    assert [path for path, _ in walk(document)] == paths


def test_a_name_that_is_data_is_a_value_too() -> None:
    assert ("readers{}", "ann@x.org") in list(walk({"readers": {"ann@x.org": True}}))


@pytest.mark.parametrize("name", ["5", "a b", "ann@x.org", "user_12345", "k0123456789abcdef", "", "x" * 65, "a.b", "é"])
def test_names_that_are_data(name: str) -> None:
    assert is_dynamic(name)


@pytest.mark.parametrize("name", ["user_1234", "_id", "facade", "address2", "x" * 64, "deadbeefdeadbee"])
def test_names_that_are_names(name: str) -> None:
    assert not is_dynamic(name)


@given(VALUES)
def test_no_path_holds_a_name_that_is_data(value: Any) -> None:
    for path, _ in walk({"field": value}):
        parts = path.removesuffix("{}").replace("[]", "").split(".")

        assert not any(is_dynamic(part) for part in parts)


@pytest.mark.parametrize(
    ("path", "declared"),
    [("a", "a"), ("a.b", "a"), ("a.b", "a.b"), ("a[]", "a"), ("a[].b", "a[]"), ("a{}", "a"), ("a{}", "a{}")],
)
def test_what_is_a_part_of_a_field_is_declared(path: str, declared: str) -> None:
    assert is_declared(path, 1, {declared: FIELD})


@pytest.mark.parametrize(("path", "declared"), [("ab", "a"), ("a", "a.b"), ("a", "a[]"), ("b.a", "a"), ("a", "ab")])
def test_what_is_beside_a_field_is_not(path: str, declared: str) -> None:
    assert not is_declared(path, 1, {declared: FIELD})


@pytest.mark.parametrize(("value", "is_known"), [([], True), ({}, True), (None, True), (0, False), ("", False)])
def test_only_what_is_empty_may_stand_where_its_parts_are_declared(value: Any, *, is_known: bool) -> None:
    assert is_declared("a", value, {"a[].b": FIELD}) is is_known


def test_the_nearest_declaration_counts() -> None:
    wide, near = FieldOf(categories=("user",)), FieldOf(categories=("none",))

    assert declaring("a.b.c", {"a": wide, "a.b": near}) == near
    assert declaring("a.bc", {"a": wide, "a.b": near}) == wide
    assert declaring("b", {"a": wide}) is None


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seeded_reference_database_has_no_undeclared_path(seed: int) -> None:
    documents = seed_documents(seed, moment=datetime(2026, 3, 1, tzinfo=UTC)).documents
    found = {name: undeclared(stored, fields_of(name, REFERENCE) or {}) for name, stored in documents.items()}

    assert {name: paths for name, paths in found.items() if paths} == {}


def test_every_collection_of_the_reference_domain_is_closed() -> None:
    assert [name for name, found in REFERENCE.collections.items() if not found.closed] == []
    assert {purpose for found in REFERENCE.collections.values() for field in found.fields.values()
            for purpose in field.purposes} == set(REFERENCE.purposes)  # fmt: skip
    assert all(
        field.origin and field.purposes
        for found in REFERENCE.collections.values()
        for field in found.fields.values()
        if field.is_personal
    )


def test_old_versions_have_the_fields_of_their_collection_and_their_own() -> None:
    fields = fields_of("users_history", REFERENCE)

    assert fields is not None
    assert {"email", "document_id", "versioned_at"} <= set(fields)
    assert "versioned_at" not in (fields_of("users", REFERENCE) or {})
    assert is_closed("users_history", REFERENCE)
    assert fields_of("nowhere", REFERENCE) is fields_of("nowhere_history", REFERENCE) is None
    assert not is_closed("nowhere", REFERENCE)
    assert undeclared([{"_id": ObjectId(), "pet": 1}], fields_of("users", REFERENCE) or {}) == {"pet"}
