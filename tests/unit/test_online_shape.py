"""What a declaration of an online change may say, and what events say of a document."""

from dataclasses import replace
from typing import Any

import pytest
from bson import Timestamp
from shaped import BLOCK, NAME

from compliance.errors import MigrationError
from migrations.discovery import read_script
from migrations.governance import lint, parse_script
from migrations.online.events import Stance, Written, decide, written_by
from migrations.online.feed import moment_of
from migrations.online.own import key_of
from migrations.online.reconcile import Key, Trail
from migrations.online.shape import Shape, Side, clear, complete_new

SHAPE = Shape(
    collection="people",
    old=("name",),
    new=("first", "last"),
    up=[{"$set": {"first": "$name", "last": ""}}],
    down=[{"$set": {"name": "$first"}}],
)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"old": ()}, "^old: name the fields of the old shape, each once$"),
        ({"new": ("first", "first")}, "^new: name the fields of the new shape, each once$"),
        ({"old": ("a.b",)}, "^old: a.b: only fields at the top of a document, and not _id$"),
        ({"new": ("_id",)}, "^new: _id: only fields"),
        ({"new": ("first", "last", "name")}, "^name: in both shapes; give the new shape fields of its own$"),
        ({"up": []}, "^up is empty: it computes first, last$"),
        ({"up": [{"$set": {"name": 1}}]}, "^up changes name; it may change first, last alone$"),
        ({"up": [{"$unset": ["first", "x.y"]}]}, "^up changes x; it may change first, last alone$"),
        ({"down": [{"$unset": "first"}]}, "^down changes first; it may change name alone$"),
        ({"down": [{"$replaceWith": {}}]}, r"^down: \$replaceWith: only \$set, \$addFields and \$unset$"),
        ({"down": [{}]}, "^down: an empty stage"),
    ],
)
def test_a_declaration_that_cannot_be_kept_in_step_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(MigrationError, match=fault):
        replace(SHAPE, **changes).check()


def test_a_declaration_that_can_is_not() -> None:
    SHAPE.check()
    replace(SHAPE, up=[{"$addFields": {"first": 1}}, {"$unset": "last"}], down=[{"$set": {"name.x": 1}}]).check()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"operationType": "insert", "fullDocument": {"name": 1}}, Written.OLD),
        ({"operationType": "insert", "fullDocument": {"last": 1}}, Written.NEW),
        ({"operationType": "insert", "fullDocument": {"last": 1, "name": 1}}, Written.NEW),
        ({"operationType": "insert", "fullDocument": {"city": 1}}, None),
        ({"operationType": "insert"}, None),
        ({"operationType": "replace", "fullDocument": {"name": 1}}, Written.OLD),
        ({"operationType": "replace", "fullDocument": {"first": 1}}, Written.NEW),
        ({"operationType": "replace", "fullDocument": {"first": 1, "name": 1}}, Written.UNKNOWN),
        ({"updateDescription": {"updatedFields": {"name": 1}}}, Written.OLD),
        ({"updateDescription": {"updatedFields": {"name.3": 1}}}, Written.OLD),
        ({"updateDescription": {"updatedFields": {"names": 1}}}, None),
        ({"updateDescription": {"removedFields": ["last"]}}, Written.NEW),
        ({"updateDescription": {"truncatedArrays": [{"field": "name", "newSize": 1}]}}, Written.OLD),
        ({"updateDescription": {"updatedFields": {"name": 1, "last": 1}}}, Written.NEW),
        ({"updateDescription": {"updatedFields": {"city": 1}}}, None),
        ({}, None),
    ],
)
def test_an_event_says_which_shape_was_written(event: dict[str, Any], expected: Written | None) -> None:
    assert written_by({"operationType": "update", **event}, SHAPE) is expected


BOTH, OLD, NEW = {"name": 1, "first": 1}, {"name": 1}, {"last": 1}
UP, DOWN = SHAPE.towards(Side.NEW), SHAPE.towards(Side.OLD)


@pytest.mark.parametrize(
    ("written", "document", "stance", "expected"),
    [
        (Written.OLD, BOTH, Stance(), UP),
        (Written.OLD, OLD, Stance(), UP),
        (Written.NEW, BOTH, Stance(), DOWN),
        (Written.NEW, NEW, Stance(), DOWN),
        (Written.OLD, NEW, Stance(), clear(SHAPE.new)),
        (Written.NEW, OLD, Stance(), clear(SHAPE.old)),
        (Written.UNKNOWN, BOTH, Stance(), []),
        (Written.UNKNOWN, {}, Stance(), []),
        (Written.UNKNOWN, OLD, Stance(), UP),
        (Written.UNKNOWN, NEW, Stance(), DOWN),
        (Written.NEW, BOTH, Stance(is_filling=True), complete_new(SHAPE)),
        (Written.NEW, NEW, Stance(is_filling=True), DOWN),
        (Written.OLD, BOTH, Stance(is_filling=True), UP),
        (Written.NEW, NEW, Stance(leaving=Side.OLD), []),
        (Written.NEW, BOTH, Stance(leaving=Side.OLD), DOWN),
        (Written.OLD, OLD, Stance(leaving=Side.OLD), UP),
        (Written.OLD, OLD, Stance(leaving=Side.NEW), []),
        (Written.NEW, NEW, Stance(leaving=Side.NEW), DOWN),
    ],
)
def test_the_shape_that_was_written_last_wins(
    written: Written, document: dict[str, Any], stance: Stance, expected: list[dict[str, Any]]
) -> None:
    assert decide(written, document, SHAPE, stance) == expected


def test_a_token_names_its_moment() -> None:
    assert moment_of({"_data": "82" + "0000000a" + "0000000b" + "2b04"}) == Timestamp(10, 11)


def test_only_a_write_in_a_transaction_has_a_key() -> None:
    assert key_of({"lsid": {"id": b"s"}, "txnNumber": 3}) == (b"s", 3)
    assert key_of({"lsid": {"id": b"s"}}) is None
    assert key_of({}) is None


def test_ids_of_any_type_can_be_looked_up_and_are_not_mixed_up() -> None:
    assert {Key({"a": [1]}): 1}[Key({"a": [1]})] == 1
    assert Key(1) != Key("1")
    assert Key(1) != 1


def test_what_came_behind_a_write_is_a_trail_of_its_own() -> None:
    trail = Trail()
    trail.add(Written.OLD, None)
    trail.add(Written.NEW, {"_data": "x"})

    assert trail.behind(1) == Trail([Written.NEW], [{"_data": "x"}])


def test_the_script_of_the_documentation_breaks_no_rule() -> None:
    assert lint([parse_script(f"{NAME}.py", BLOCK)]) == ()


HEAD = '"""Change it."""\n\nfrom migrations.context import Shape\n\n'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("CHANGE = Shape(1)\n\n\ndef up(ctx):\n    pass\n", "define no up, down or IRREVERSIBLE beside it"),
        ('CHANGE = Shape(1)\nIRREVERSIBLE = "why not"\n', "define no up, down or IRREVERSIBLE beside it"),
    ],
)
def test_a_script_is_an_online_change_or_has_functions(body: str, fault: str) -> None:
    with pytest.raises(MigrationError, match=fault):
        read_script("v001_data_x.py", (HEAD + body).encode(), place="x")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("3", "CHANGE is no Shape"),
        ('Shape(collection="c", old=("a",), new=("b",), up=[], down=[])', "v001_data_x.py: up is empty"),
    ],
)
def test_a_change_that_is_none_is_refused_when_it_is_loaded(change: str, fault: str) -> None:
    revision = read_script("v001_data_x.py", f"{HEAD}CHANGE = {change}\n".encode(), place="x")

    assert revision.is_online
    with pytest.raises(MigrationError, match=fault):
        revision.load()
