"""What a map can say of a collection, and what it cannot say at once."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from compliance.datamap.collection import Collection, FieldOf, Purpose
from compliance.datamap.model import DataMap
from compliance.datamap.rule import Kept, Locator, Rule, Update, leaves
from compliance.datamap.taxonomy import categories, is_within
from compliance.erasure.plan import compile_steps
from compliance.errors import ConfigurationError

DELETE = {"action": "delete"}
UNSET = {"action": "update", "unset": ["user_id"]}
LAW = {"fields": ["a"], "ground": "Law", "why": "why"}
OPAQUE = {"path": "user_id", "key": "id"}


def mapped(collections: dict[str, Any], **more: Any) -> DataMap:
    subject = {"collection": "people", "key": "id", "keys": {"id": {"path": "_id", "type": "objectId"}}}
    given = {"apiVersion": "datamap/v1", "subject": subject | more.pop("subject", {}), "collections": collections}
    return DataMap.model_validate(given | more)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"locate": {"path": "a", "key": "id", "suffix": "/"}, "on_erase": DELETE}, "suffix needs prefix"),
        ({"locate": {"path": "a{}", "key": "id", "prefix": ""}, "on_erase": DELETE}, "give one of"),
        ({"locate": {"path": "a", "key": "id", "prefix": "", "encoded": ["hex"]}, "on_erase": DELETE}, "give one of"),
        ({"locate": {"path": "a", "of": "people", "prefix": "x"}, "on_erase": DELETE}, "for key, not for of"),
        ({"locate": {"path": "a{}", "of": "people"}, "on_erase": DELETE}, "for key, not for of"),
        ({"locate": OPAQUE, "on_erase": {"action": "keep"}}, "keep needs kept"),
        ({"locate": OPAQUE | {"edge": "shared"}, "on_erase": DELETE}, "shared is never deleted"),
        (
            {"locate": OPAQUE | {"edge": "shared"}, "on_erase": {"action": "archive", "to": "b", "fields": ["c"]}},
            "shared is never deleted",
        ),
        ({"locate": OPAQUE, "on_erase": {"action": "remove_key"}}, "takes remove_key"),
        (
            {"locate": {"path": "a{}", "key": "id"}, "on_erase": {"action": "pull", "array": "a"}},
            "takes remove_key",
        ),
        ({"locate": OPAQUE | {"edge": "owned"}, "on_erase": DELETE}, "owned takes a path through an array"),
        ({"locate": OPAQUE, "on_erase": {"action": "update", "set": {"a": 1}, "unset": ["a.b"]}}, "changed twice"),
        ({"locate": OPAQUE, "on_erase": {"action": "update", "mask": {"a": "hash"}}}, "mask.a"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(rule: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Rule.model_validate(rule)


@pytest.mark.parametrize(
    ("locate", "on_erase", "expected"),
    [
        ({"path": "a{}", "key": "id"}, {"action": "remove_key"}, True),
        ({"path": "a{}", "key": "id"}, {"action": "update", "unset": ["a"]}, True),
        ({"path": "a{}", "key": "id"}, {"action": "update", "unset": ["ab"]}, False),
        ({"path": "a.b", "key": "id"}, {"action": "update", "relabel": ["a.b"]}, True),
        ({"path": "a.b", "key": "id"}, {"action": "update", "mask": {"a": "hash_v1"}}, True),
        ({"path": "a.b", "key": "id"}, {"action": "update", "mask": {"a.bc": "hash_v1"}}, False),
        ({"path": "a", "key": "id"}, {"action": "archive", "to": "b", "fields": ["c"]}, True),
    ],
)
def test_an_action_takes_its_locator_away_or_not(locate: Any, on_erase: Any, expected: bool) -> None:  # noqa: FBT001
    rule = Rule.model_validate({"locate": locate, "on_erase": on_erase})

    assert leaves(rule.on_erase, Locator.model_validate(locate).path) is expected


@pytest.mark.parametrize(
    ("collections", "more", "expected"),
    [
        ({"v": {"kind": "view", "rules": [{"locate": OPAQUE, "on_erase": DELETE}]}}, {}, "v: a view stores nothing"),
        (
            {"t": {"kind": "timeseries", "rules": [{"locate": OPAQUE, "on_erase": UNSET}]}},
            {},
            "t: of a time series only delete",
        ),
        ({"c": {"retention": [{"purpose": "p", "age_of": "at"}]}}, {}, "c: purpose p is not one"),
        (
            {"c": {"retention": [{"purpose": "p", "age_of": "at"}]}},
            {"purposes": {"p": {"basis": "contract", "why": "sold"}}},
            "c: retention by p: that purpose says no retention",
        ),
        ({"c": {"closed": True}}, {}, "closed needs fields"),
        ({"c": {"fields": {"a": {"categories": []}}}}, {}, "say what it holds"),
        ({"c": {"fields": {"a": {"categories": ["none", "user.name"]}}}}, {}, "none stands alone"),
        ({"c": {"fields": {"a": {"categories": ["user.name_x"]}}}}, {}, "not in the fideslang taxonomy: user.name_x"),
        (
            {"c": [{"locate": OPAQUE, "on_erase": {"action": "update", "relabel": ["user_id"]}}]},
            {},
            "c: relabel needs subject.tombstone",
        ),
        ({}, {"tenant": {"field": "a b", "type": "string"}}, "tenant.field"),
        ({}, {"purposes": {"p": {"basis": "because", "why": "sold"}}}, "purposes.p.basis"),
        ({}, {"purposes": {"p": {"basis": "contract", "why": "sold", "retention": "3 years"}}}, "expected a period"),
    ],
)  # fmt: skip
def test_a_map_that_does_not_hang_together_is_refused(collections: Any, more: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected.replace(".", r"[.\n]*")):
        mapped(collections, **more)


def test_a_bucket_of_gridfs_is_two_collections_and_chunks_go_first() -> None:
    rule = {"locate": {"path": "metadata.user_id", "key": "id"}, "on_erase": DELETE}

    data_map = mapped({"photos": {"kind": "gridfs", "rules": [rule]}})

    assert set(data_map.collections) == {"photos.files", "photos.chunks"}
    assert [step.collection for step in compile_steps(data_map)] == ["photos.chunks", "photos.files", "people"]
    assert DataMap.model_validate(data_map.model_dump()) == data_map


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"locate": {"path": "a[].b{}", "key": "id"}, "on_erase": DELETE}], "cannot go through an array"),
        ([{"locate": {"path": "a[].b[]", "key": "id", "edge": "owned"}, "on_erase": DELETE}], "through one array"),
        ([{"locate": {"path": "a", "of": "c", "edge": "shallow"}, "on_erase": DELETE}], "takes edge deep"),
        ([{"locate": {"path": "a", "of": "c"}, "on_erase": DELETE}] * 2, "only one rule"),
        (
            [{"locate": {"path": "a[]", "key": "id"}, "on_erase": {"action": "pull", "array": "a", "match": {"b": 1}}}],
            "match is for arrays of documents",
        ),
        ([{"locate": OPAQUE, "on_erase": {"action": "keep"}, "kept": LAW}], "kept.fields must hold user_id"),
        ([{"locate": OPAQUE, "on_erase": {"action": "update", "mask": {"user_id": "rot_v1"}}}], "no strategy rot_v1"),
        (
            [
                {"locate": {"path": "a", "of": "d"}, "on_erase": {"action": "keep"}, "kept": LAW},
                {"locate": OPAQUE, "on_erase": DELETE},
            ],
            "beside other rules keep takes a key",
        ),
    ],
)  # fmt: skip
def test_what_an_erasure_cannot_carry_out_is_refused_by_name(rules: Any, expected: str) -> None:
    data_map = mapped({"c": rules, "d": [{"locate": OPAQUE, "on_erase": DELETE}]})

    with pytest.raises(ConfigurationError, match=f"the data map: c: .*{re.escape(expected)}"):
        compile_steps(data_map)


def test_a_time_series_takes_no_key_that_must_be_read() -> None:
    rule = {"locate": {"path": "meta.a", "key": "id", "encoded": ["hex"]}, "on_erase": DELETE}

    with pytest.raises(ConfigurationError, match="by what their meta field holds"):
        compile_steps(mapped({"c": {"kind": "timeseries", "rules": [rule]}}))


def test_a_ground_ends_once_and_names_its_article() -> None:
    kept = {"fields": ["a"], "ground": "GDPR Art. 17(3)(b) with Art. 32", "why": "tax"}

    assert Kept.model_validate(kept | {"period": "P10Y"}).article == "17(3)(b)"
    assert Kept.model_validate(kept | {"ground": "a contract"}).article is None
    with pytest.raises(ValidationError, match="either until"):
        Kept.model_validate(kept | {"period": "P10Y", "until": "2030-01-01"})


def test_the_taxonomy_is_that_of_fideslang() -> None:
    assert {"user.contact.email", "user.name", "system.operations"} <= categories()
    assert is_within("user.contact.email", "user.contact")
    assert not is_within("user.contactable", "user.contact")
    assert FieldOf.model_validate({"categories": ["user.name"]}).is_personal
    assert not FieldOf.model_validate({"categories": ["none"]}).is_personal


def test_a_list_of_rules_is_a_collection_of_which_nothing_else_is_said() -> None:
    rules = [{"locate": OPAQUE, "on_erase": DELETE}]

    assert mapped({"c": rules}) == mapped({"c": {"rules": rules}})
    assert mapped({"c": rules}).collections["c"] == Collection.model_validate({"rules": rules})


def test_what_is_touched_is_named() -> None:
    update = Update.model_validate(
        {"action": "update", "set": {"a": 1}, "unset": ["b"], "relabel": ["c"], "mask": {"d": "hash_v1"}}
    )

    assert update.touched == ("a", "b", "c", "d")
    assert Purpose.model_validate({"basis": "contract", "why": "sold", "retention": "P3Y"}).retention is not None
