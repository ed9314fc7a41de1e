"""How states are compared, writes told from reads, and deaths chosen."""

from typing import Any

import pytest
from bson import ObjectId

from worker.testing.kit import _sample
from worker.testing.mortal import Order, is_write
from worker.testing.scene import with_login
from worker.testing.state import Held, compare, key_of
from worker.testing.writers import Application, Written, p99


def held(*documents: dict[str, Any], **values: Any) -> Held:
    found = {"kind": "collection", "options": {}, "indexes": {"_id_": {"key": {"_id": 1}}}}
    return Held(**(found | values), documents={key_of(one["_id"]): one for one in documents})


ONE = {"_id": 1, "a": 1, "b": {"c": 1, "d": 2}}


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        ({"things": held(ONE)}, []),
        ({"things": held({"b": {"c": 1, "d": 2}, "a": 1, "_id": 1})}, []),
        ({"things": held({**ONE, "b": {"d": 2, "c": 1}})}, ["1 document of things differ in b (_id 1)"]),
        ({"things": held({**ONE, "a": 1.0})}, ["1 document of things differ in a (_id 1)"]),
        ({"things": held({"_id": 1, "a": 1})}, ["1 document of things differ in b (_id 1)"]),
        ({"things": held()}, ["1 document of things missing (_id 1)"]),
        (
            {"things": held(ONE, *({"_id": n} for n in range(2, 8)))},
            ["6 documents of things too many (_id 2, 3, 4, 5, 6, ...)"],
        ),
        ({}, ["the collection things is missing"]),
        ({"things": held(ONE), "more": held()}, ["the collection more should not be there"]),
        ({"things": held(ONE, options={"validator": {}})}, ["the options of things differ: validator"]),
        ({"things": held(ONE, indexes={})}, ["the index things._id_ is missing"]),
        ({"things": held(ONE, indexes={"_id_": {"key": {"_id": -1}}})}, ["the index things._id_ differs"]),
        (
            {"things": held(ONE, indexes={"_id_": {"key": {"_id": 1}}, "x": {}})},
            ["the index things.x should not be there"],
        ),
    ],
)
def test_what_differs_is_named(found: dict[str, Held], sentences: list[str]) -> None:
    assert compare({"things": held(ONE)}, found) == sentences


def test_ids_of_different_types_are_different() -> None:
    ids = [1, 1.5, "1", True, None, ObjectId(), {"a": 1}]

    assert len({key_of(id_) for id_ in ids}) == len(ids)


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("find", {}, False),
        ("update", {}, True),
        ("commitTransaction", {}, True),
        ("createIndexes", {}, True),
        ("somethingNew", {}, True),
        ("aggregate", {"pipeline": [{"$match": {}}]}, False),
        ("aggregate", {"pipeline": [{"$match": {}}, {"$merge": "x"}]}, True),
        ("aggregate", {"pipeline": [{"$out": "x"}]}, True),
    ],
)
def test_what_may_change_something_is_a_write(name: str, command: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    assert is_write(name, command) is expected


@pytest.mark.parametrize(
    ("writes", "most", "numbers"),
    [
        (3, 5, [1, 2, 3]),
        (5, 5, [1, 2, 3, 4, 5]),
        (9, 3, [1, 5, 9]),
        (100, 2, [1, 100]),
        (100, 1, [1]),
        (100, 0, []),
        (0, 5, []),
    ],
)
def test_deaths_are_chosen_with_the_first_and_the_last(writes: int, most: int, numbers: list[int]) -> None:
    assert _sample(writes, most) == numbers


def test_another_user_is_put_into_a_connection_string() -> None:
    uri = with_login(
        "mongodb://root:p%40@a:1,b:2/?replicaSet=rs0&authSource=admin", user="u", password="p/", source="x"
    )

    assert uri == "mongodb://u:p%2F@a:1,b:2/?replicaSet=rs0&authSource=x"


def application(*written: Written, counted: int = 0, unknown: int = 0) -> Application:
    made = Application(database=None, writer=None, documents=[("things", 1)])  # type: ignore[arg-type] # it writes nothing
    made.last.append({(one.collection, key_of(one.id)): one for one in written})
    if counted or unknown:
        made.counted[("things", key_of(1))] = counted
        made.unknown[("things", key_of(1))] = unknown
    return made


@pytest.mark.parametrize(("value", "is_lost"), [(2, True), (3, False), (4, False), (5, True)])
def test_a_count_is_what_was_acknowledged_and_perhaps_what_nobody_knows(value: int, is_lost: bool) -> None:  # noqa: FBT001
    found = {"things": held({"_id": 1, "counted_by_test": value})}

    assert bool(application(counted=3, unknown=1).find_lost(found)) is is_lost


@pytest.mark.parametrize(
    ("fields", "document", "fault"),
    [
        ({"a": 1}, {"_id": 1, "a": 1, "b": 2}, None),
        ({"a": 1}, {"_id": 1, "a": 2}, "does not hold its last a"),
        ({"a": 1}, {"_id": 1}, "does not hold its last a"),
        ({"a": None}, {"_id": 1}, "does not hold its last a"),
        ({"a": 1}, None, "is gone"),
        (None, None, None),
        (None, {"_id": 1}, "is there again"),
    ],
)
def test_what_was_acknowledged_is_there(
    fields: dict[str, Any] | None, document: dict[str, Any] | None, fault: str | None
) -> None:
    found = {"things": held(*([document] if document else []))}
    lost = application(Written(collection="things", id=1, fields=fields)).find_lost(found)

    assert lost == ([f"1 documents of things lost acknowledged writes (_id 1 {fault})"] if fault else [])


def test_a_document_that_moved_is_found() -> None:
    moved = {"things": held(), "things_2026": held({"_id": 1, "a": 1})}

    assert application(Written(collection="things", id=1, fields={"a": 1})).find_lost(moved) == []


def test_of_a_hundred_writes_ninety_nine_took_at_most_p99() -> None:
    assert p99([n / 1000 for n in range(1, 201)]).total_seconds() == pytest.approx(0.199)
    assert p99([]).total_seconds() == 0


def test_an_order_shows_neither_password_nor_key() -> None:
    order = Order(
        uri="mongodb://ann:hidden@host/",
        database="app",
        folder="scripts",
        data_map="map.yaml",
        writer_key="hidden too",
        script="v001_data_it",
        batch_docs=5,
    )

    assert "v001_data_it" in repr(order)
    assert "hidden" not in repr(order)
