"""A walk by keyset shows every document once, whatever the BSON types of its ids."""

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from deployment import Deployment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection

from compliance.mongo import Document
from migrations.ops.keyset import behind, between, page

EVERY_TYPE: dict[str, Any] = {
    "minKey": MinKey(),
    "null": None,
    "int": 7,
    "long": Int64(2**40),
    "double": 2.5,
    "decimal": Decimal128("3.25"),
    "string": "$name",
    "object": {"a": "$b"},
    "reference": DBRef("things", 1),
    "binData": Binary(b"\x00\xff", 4),
    "objectId": ObjectId("0123456789abcdef01234567"),
    "bool": True,
    "date": datetime(2026, 1, 1, tzinfo=UTC),
    "timestamp": Timestamp(1, 2),
    "javascript": Code("x"),
    "maxKey": MaxKey(),
}
EXTREMES: list[Any] = [float("nan"), float("inf"), float("-inf"), Decimal128("NaN"), -0.0, "", {}, False]

moments = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
scalars = st.one_of(
    st.sampled_from([*EVERY_TYPE.values(), *EXTREMES]),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(allow_nan=False),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=5),
    st.binary(max_size=5).map(lambda data: Binary(data, 0)),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    moments,
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
ids = st.one_of(scalars, st.dictionaries(st.sampled_from(["a", "b"]), scalars, max_size=2))


def key(identifier: Any) -> bytes:
    return bson.encode({"": identifier})


def walk(collection: Collection[Document], where: Document, *, limit: int) -> list[Any]:
    place: dict[str, Any] = {}
    seen: list[Any] = []
    while found := page(collection, where, place, limit=limit):
        assert len(found) <= limit
        seen += found
        place = {"last": bson.decode(bson.encode({"last": found[-1]}))["last"]}  # as a checkpoint keeps it
        assert len(seen) <= 1000
    return seen


def fill(collection: Collection[Document], identifiers: list[Any]) -> list[Any]:
    """Insert what the server takes as an id and has not seen yet; return it."""
    collection.delete_many({})
    for identifier in identifiers:
        if not collection.count_documents({"$expr": {"$eq": ["$_id", {"$literal": identifier}]}}):
            collection.insert_one({"_id": identifier})
    return [document["_id"] for document in collection.find({}, {"_id": 1}).sort("_id", 1)]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_walk_visits_ids_of_every_type_in_their_order(empty: Deployment, limit: int) -> None:
    things = empty.admin.app["things"]
    for identifier in EVERY_TYPE.values():
        things.insert_one({"_id": identifier})
    expected = [document["_id"] for document in things.find().sort("_id", 1)]
    assert len(expected) == len(EVERY_TYPE)

    assert list(map(key, walk(things, {}, limit=limit))) == list(map(key, expected))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(identifiers=st.lists(ids, max_size=12), limit=st.integers(1, 4))
def test_a_walk_visits_any_ids_once(empty: Deployment, identifiers: list[Any], limit: int) -> None:
    things = empty.admin.app["things"]
    expected = fill(things, identifiers)

    assert list(map(key, walk(things, {}, limit=limit))) == list(map(key, expected))


def test_only_what_matches_is_visited_and_what_the_walk_changes_is_not_seen_twice(empty: Deployment) -> None:
    things = empty.admin.app["things"]
    things.insert_many([{"_id": n, "n": n % 3} for n in range(20)])
    things.create_index("n")
    place: dict[str, Any] = {}
    seen: list[int] = []
    while found := page(things, {"n": {"$lt": 100, "$gt": 0}}, place, limit=3):
        things.update_many({"_id": {"$in": found}}, {"$inc": {"n": 1}})
        seen += found
        place = {"last": found[-1]}

    assert seen == [n for n in range(20) if n % 3]


@pytest.mark.parametrize("last", EVERY_TYPE.values(), ids=EVERY_TYPE)
def test_a_page_seeks_in_the_index_whatever_the_type_of_the_last_id(empty: Deployment, last: Any) -> None:
    things = empty.admin.app["things"]
    things.insert_many([{"_id": n} for n in range(50)])

    plan = things.find({"$and": [{}, behind(last)]}, {"_id": 1}, hint=[("_id", 1)]).sort("_id", 1).limit(3).explain()

    text = str(plan["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in text
    assert "[MinKey, MaxKey]" not in text or isinstance(last, MinKey)
    assert "SORT" not in text.replace("sortPattern", "")


@pytest.mark.parametrize(
    ("first", "last", "is_plain"),
    [
        (1, 2, True),
        ("a", "b", True),
        (ObjectId(), ObjectId(), True),
        (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC), True),
        (1, "a", False),
        (1, 2.5, False),
        (1.5, 2.5, False),  # not a number is one of them
        (False, True, False),
        (None, MinKey(), False),
    ],
)
def test_a_range_within_one_type_is_a_plain_one(first: Any, last: Any, is_plain: bool) -> None:  # noqa: FBT001
    found = between({"last": first}, {"last": last})

    assert (found == {"_id": {"$gt": first, "$lte": last}}) is is_plain
    assert "$expr" in str(between({}, {"last": last}))
