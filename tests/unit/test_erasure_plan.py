"""What an erasure does, and in which order."""

from typing import Any

import pytest
import yaml
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.model import DataMap, load_data_map
from compliance.datamap.rule import Delete, Update
from compliance.datamap.subject import Identity
from compliance.erasure.plan import Step, compile_steps, filter_for, update_for
from compliance.errors import ConfigurationError
from compliance.settings import DATA_MAP

ME = Identity({"user_id": ObjectId("65f000000000000000000001"), "email": "ann@x.org"})
MINE = ME.values["user_id"]
REFERENCE = load_data_map(DATA_MAP)
DELETE = {"action": "delete"}


def map_of(collections: dict[str, Any], *, history: bool = True) -> DataMap:
    content = yaml.safe_load(DATA_MAP.read_text())
    content["collections"] = collections
    content.pop("consent_types")
    if not history:
        del content["history"]
    return DataMap.model_validate(content)


def by_key(path: str = "user_id", **more: Any) -> dict[str, Any]:
    return {"locate": {"path": path, "key": "user_id"}, "on_erase": DELETE, **more}


def of(collection: str) -> dict[str, Any]:
    return {"locate": {"path": f"{collection}_id", "of": collection}, "on_erase": DELETE}


def only_step(rule: dict[str, Any]) -> Step:
    return next(iter(compile_steps(map_of({"notes": [rule], "artists": [by_key()]}))))


@st.composite
def forests(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"c{number}" for number in range(draw(st.integers(1, 6)))]
    parents = {name: draw(st.sampled_from([None, *names[:number]])) for number, name in enumerate(names)}
    return {name: [of(parent) if parent else by_key()] for name, parent in draw(st.permutations(list(parents.items())))}


@given(collections=forests(), history=st.booleans())
def test_children_go_before_their_parents_and_the_person_last(collections: dict[str, Any], *, history: bool) -> None:
    data_map = map_of(collections, history=history)
    steps = compile_steps(data_map)
    order = [step.collection for step in steps]

    for step in steps:
        if step.of is not None:
            assert order.index(step.collection) < order.index(step.of)
            assert len(order) - 1 - order[::-1].index(step.collection) < order.index(step.of)
    assert steps[-1].is_root
    assert [step.is_root for step in steps].count(True) == 1
    assert (steps[-1].collection, steps[-1].verb) == ("users", "delete")


@given(forests())
def test_the_same_map_gives_the_same_plan(collections: dict[str, Any]) -> None:
    assert compile_steps(map_of(collections)) == compile_steps(map_of(collections))


@given(forests())
def test_every_rule_holds_for_the_old_versions_too(collections: dict[str, Any]) -> None:
    steps = compile_steps(map_of(collections))
    planned = {step.collection for step in steps}

    assert planned == {name + suffix for name in (*collections, "users") for suffix in ("", "_history")}


def test_without_histories_there_are_no_twins() -> None:
    steps = compile_steps(map_of({"artists": [by_key()]}, history=False))

    assert [step.collection for step in steps] == ["artists", "users"]


def test_old_versions_of_the_person_are_found_by_first_id_and_by_every_key() -> None:
    old = [step for step in compile_steps(REFERENCE) if step.collection == "users_history"]

    assert [(step.path, step.key, step.is_scan) for step in old] == [
        ("document_id", "user_id", False),
        ("_id", "user_id", False),
        ("email", "email", True),
    ]


def test_every_rule_of_the_reference_map_is_a_step() -> None:
    rules = [(name, rule.locate.path) for name, rule in REFERENCE.rules()]
    steps = [(step.collection, step.path) for step in compile_steps(REFERENCE)]

    assert [rule for rule in rules if rule not in steps] == []


def test_a_circle_is_refused_with_its_way() -> None:
    with pytest.raises(ConfigurationError, match=r"refers in a circle: .*a -> "):
        compile_steps(map_of({"a": [of("b")], "b": [of("a")]}))


def test_a_key_finds_its_documents_under_the_narrowing_filter() -> None:
    step = only_step(by_key("owner.id", where={"shared": {"$ne": True}}))

    assert filter_for(step, ME, []) == {"$and": [{"owner.id": MINE}, {"shared": {"$ne": True}}]}


def test_a_path_through_arrays_finds_any_element() -> None:
    assert filter_for(only_step(by_key("a[].b[].id")), ME, []) == {"$and": [{"a.b.id": MINE}, {}]}


def test_a_reference_finds_the_children_of_what_belongs_to_the_person() -> None:
    step = only_step(of("artists"))

    assert filter_for(step, ME, [1, 2]) == {"$and": [{"artists_id": {"$in": [1, 2]}}, {}]}
    assert filter_for(step, ME, []) is None


def test_a_key_that_is_not_known_looks_for_nothing() -> None:
    assert filter_for(only_step(by_key()), Identity({}), []) is None


def test_a_personal_key_is_scanned_for() -> None:
    rule = {"locate": {"path": "mail", "key": "email"}, "on_erase": DELETE}

    assert only_step(rule).is_scan


def test_a_delete_is_a_delete() -> None:
    assert isinstance(only_step(by_key()).action, Delete)


@pytest.mark.parametrize(
    ("action", "update"),
    [
        ({"set": {"who": "x", "name": "y"}}, {"$set": {"who": "x", "name": "y"}}),
        ({"unset": ["who", "ip"]}, {"$unset": {"who": "", "ip": ""}}),
        ({"set": {"who": "x"}, "unset": ["ip"]}, {"$set": {"who": "x"}, "$unset": {"ip": ""}}),
    ],
)
def test_an_update_sets_and_unsets(action: dict[str, Any], update: dict[str, Any]) -> None:
    step = only_step(by_key("who", on_erase={"action": "update", **action}))
    assert isinstance(step.action, Update)

    assert update_for(step.action, step, ME, []) == update


@pytest.mark.parametrize(
    ("path", "array", "update"),
    [
        ("members[].user_id", "members", {"$pull": {"members": {"user_id": MINE}}}),
        ("members[]", "members", {"$pull": {"members": MINE}}),
        ("team.members[].who.id", "team.members", {"$pull": {"team.members": {"who.id": MINE}}}),
        ("members[].roles[].by", "members", {"$pull": {"members": {"roles.by": MINE}}}),
        ("groups[].members[].id", "groups[].members", {"$pull": {"groups.$[].members": {"id": MINE}}}),
        ("a[].b[].c[]", "a[].b[].c", {"$pull": {"a.$[].b.$[].c": MINE}}),
    ],
)
def test_a_pull_takes_the_elements_of_the_person(path: str, array: str, update: dict[str, Any]) -> None:
    step = only_step(by_key(path, on_erase={"action": "pull", "array": array}))
    assert not isinstance(step.action, Delete)

    assert update_for(step.action, step, ME, []) == update


def test_a_pull_by_reference_takes_every_element_that_refers() -> None:
    rule = {"locate": {"path": "line_up[].artist", "of": "artists"}, "on_erase": {"action": "pull", "array": "line_up"}}
    step = only_step(rule)
    assert not isinstance(step.action, Delete)

    assert update_for(step.action, step, ME, [1, 2]) == {"$pull": {"line_up": {"artist": {"$in": [1, 2]}}}}


@given(forests())
def test_no_personal_value_stands_in_a_query(collections: dict[str, Any]) -> None:
    steps = compile_steps(map_of(collections))

    assert all("ann@x.org" not in repr(filter_for(step, ME, [1])) for step in steps if not step.is_scan)
