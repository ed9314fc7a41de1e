"""What a dry run takes for carried out."""

from typing import Any

import pytest
from bson import ObjectId

from compliance.health.observed import Observed
from migrations.command import Command, alteration, delete_many, insert_each, set_each, update_many
from migrations.overlay import Overlay
from migrations.sketch import Sketch, masked, masked_insert
from migrations.step import Kind, Step

BY_N = {"v": 2, "key": {"n": 1}, "name": "ix_n"}
THERE = {"ix_n": Observed(BY_N, is_building=False)}


def after(*commands: Command) -> Overlay:
    overlay = Overlay()
    for command in commands:
        overlay.apply(command)
    return overlay


def test_what_is_created_is_there_with_its_options_and_the_index_of_ids() -> None:
    overlay = after(alteration("create", "things", validator={"a": 1}))

    assert overlay.collection("things", None) == {"validator": {"a": 1}}
    assert list(overlay.indexes_of("things", {})) == ["_id_"]
    assert overlay.collection("others", None) is None
    assert overlay.collection("others", {"capped": True}) == {"capped": True}
    assert overlay.names(["others"]) == {"things", "others"}


def test_what_is_dropped_is_gone_and_may_be_created_again() -> None:
    gone = after(alteration("createIndexes", "things", indexes=[BY_N]), alteration("drop", "things"))
    again = after(alteration("drop", "things"), alteration("create", "things"))

    assert gone.collection("things", {"validator": {}}) is None
    assert gone.indexes_of("things", THERE) == {}
    assert gone.names(["things"]) == set()
    assert again.collection("things", {"validator": {"old": 1}}) == {}
    assert list(again.indexes_of("things", THERE)) == ["_id_"]


def test_a_validator_is_changed_on_what_is_there() -> None:
    overlay = after(alteration("collMod", "things", validator={"b": 1}, maxTimeMS=500))

    assert overlay.collection("things", {"validator": {"a": 1}, "capped": True}) == {
        "validator": {"b": 1},
        "capped": True,
    }


def test_an_index_is_built_changed_and_dropped() -> None:
    hidden = after(alteration("collMod", "things", index={"name": "ix_n", "hidden": True}))
    shown = after(
        alteration("collMod", "things", index={"name": "ix_n", "hidden": True}),
        alteration("collMod", "things", index={"name": "ix_n", "hidden": False}),
    )
    unique = after(
        alteration("createIndexes", "things", indexes=[BY_N]),
        alteration("collMod", "things", index={"name": "ix_n", "unique": True}),
    )

    assert hidden.indexes_of("things", THERE)["ix_n"].spec == {**BY_N, "hidden": True}
    assert shown.indexes_of("things", THERE)["ix_n"].spec == BY_N
    assert unique.indexes_of("things", {})["ix_n"].spec == {**BY_N, "unique": True}
    assert after(alteration("dropIndexes", "things", index="ix_n")).indexes_of("things", THERE) == {}
    assert BY_N == {"v": 2, "key": {"n": 1}, "name": "ix_n"}


def test_an_index_on_nothing_makes_its_collection_as_an_insert_does() -> None:
    indexed = after(alteration("createIndexes", "things", indexes=[BY_N]))
    (insert,) = insert_each("things", [{"n": 1}])

    assert indexed.collection("things", None) == {}
    assert after(insert).collection("things", None) == {}
    assert after(alteration("dropIndexes", "things", index="ix_n")).collection("things", None) is None


@pytest.mark.parametrize(
    "command", [*insert_each("things", [{}]), update_many("things", {}, {}), delete_many("things", {})]
)
def test_a_write_says_that_documents_will_differ(command: Command) -> None:
    assert after(command).written == {"things"}


def test_commands_on_our_own_databases_change_nothing_of_the_application() -> None:
    assert after(alteration("create", "jobs", database="compliance")).collection("jobs", None) is None


def test_messages_are_as_large_as_the_server_takes() -> None:
    large, many = "x" * 15_000_000, [(n, {"a": 1}) for n in range(50_001)]

    assert [len(one.body["documents"]) for one in insert_each("things", [{"n": large}] * 5)] == [2, 2, 1]
    assert [len(one.body["updates"]) for one in set_each("things", many)] == [
        50_000,
        1,
    ]
    assert set_each("things", []) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"email": "ann"}, {"email": "<str>"}),
        ({"$set": {"email": "ann", "n": 1}}, {"$set": {"email": "<str>", "n": "<int>"}}),
        ({"$or": [{"a": "ann"}, {"b": {"$in": ["ann"]}}]}, {"$or": [{"a": "<str>"}, {"b": {"$in": ["<str>"]}}]}),
        ({"friends": {"ann": 1}}, {"friends": "<dict>"}),
        ({"tags": ["ann"]}, {"tags": "<list>"}),
    ],
)
def test_values_are_hidden_and_field_names_are_not(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_documents_that_are_inserted_show_their_fields() -> None:
    id_ = ObjectId()
    (command,) = insert_each("things", [{"_id": id_, "email": "ann", "n": 1}])

    assert masked_insert(command).body == {
        "insert": "things",
        "documents": [{"_id": id_, "email": "<str>", "n": "<int>"}],
    }
    assert masked_insert(command).is_masked


@pytest.mark.parametrize("id_", ["ann@x.org", {"name": "ann"}, ["ann"]])
def test_an_id_that_could_be_personal_is_hidden_wherever_it_stands(id_: Any) -> None:
    sketch = sketched()

    sketch.add(update_many("things", {"$expr": {"$lte": ["$_id", {"$literal": id_}]}}, {}), hiding=(id_, None, 7))

    (command,) = sketch.step.commands
    assert command.is_masked
    assert command.body["updates"][0]["q"] == {"$expr": {"$lte": ["$_id", {"$literal": f"<{type(id_).__name__}>"}]}}


def test_an_opaque_id_is_shown() -> None:
    sketch, id_ = sketched(), ObjectId()
    command = update_many("things", {"_id": id_}, {})

    sketch.add(command, hiding=(id_, 7, None))

    assert sketch.step.commands == [command]


def test_a_note_is_kept_beside_its_step_unless_it_says_what_the_step_does() -> None:
    sketch = sketched()

    sketch.note("  do it")
    sketch.note("  3 documents")

    assert sketch.step.notes == ["3 documents"]


def sketched() -> Sketch:
    sketch = Sketch()
    sketch.begin(Step(number=1, kind=Kind.DDL, what="do it", digest=""))
    return sketch
