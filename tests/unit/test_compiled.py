"""What a shape reads is what the encoder says, or it is left to the encoder."""

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import DatetimeMS, Int64, ObjectId
from doubled import doubled
from entries import ENTRY, ID, NOON
from hypothesis import given
from hypothesis import strategies as st
from signing import a_writer, signed

from compliance.audit.compiled import MAX_ALIKE, MAX_SHAPES, OFTEN, Shape, Shapes, compile_shape
from compliance.audit.entry import Cause
from compliance.audit.leaf import canonical_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.stored import read_stored
from compliance.audit.verification.readers import UNREADABLE, read_records, to_record
from compliance.mongo import Document

FIRST, SECOND = signed(ENTRY, ENTRY, writer=a_writer(), cause=Cause(channel="cli", trace_id="ab" * 16))
DATA = bson.encode(SECOND)

TEXTS = st.text(st.characters(max_codepoint=0x17F), max_size=6)
NAMES = TEXTS.filter(lambda name: "\0" not in name)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


def shape_of(document: Document) -> Shape:
    found = compile_shape(bson.encode(document))
    assert found is not None
    return found


def as_encoded(data: bytes) -> tuple[Any, ...] | None:
    """What the slow way says of *data*, None where it is not an entry as a writer would write it."""
    try:
        document = read_stored(data, times_as_numbers=True)
        leaf = leaf_hash(canonical_bytes(document))
        writer = document["writer"]
        prev = writer["prev"].encode() if writer["prev"] is not None else None
        places = document["_id"].encode(), writer["key"].encode(), writer["stream"].encode()
        return leaf, *places, writer["seq"], int(document["created_at"]), prev
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def test_a_shape_reads_the_entry_it_was_made_of_and_others() -> None:
    shape = shape_of(SECOND)
    other = SECOND | {
        "_id": "ab" * 16,
        "entity_id": ObjectId(),
        "created_at": datetime(1969, 12, 31, tzinfo=UTC),
        "writer": SECOND["writer"] | {"seq": -7, "stream": "f" * 16},
        "details": {"documents": 2**31 - 1, "fields": ["epyt", "detnarg"]},
    }

    for document in (SECOND, other):
        data = bson.encode(document)
        assert shape.read(data) == as_encoded(data)
        assert shape.read(data) is not None


def test_the_first_entry_of_a_stream_has_a_shape_of_its_own() -> None:
    data = bson.encode(FIRST)

    found = shape_of(FIRST).read(data)

    assert found == as_encoded(data)
    assert found is not None
    assert found.prev is None


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_read_as_the_encoder_reads_it_or_not_at_all(place: int, change: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= change

    found = shape_of(SECOND).read(bytes(changed))

    assert found is None or found == as_encoded(bytes(changed))
    assert found is None or found != shape_of(SECOND).read(DATA)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_whatever_the_details_are_a_shape_is_right_or_there_is_none(details: Document) -> None:
    document = SECOND | {"details": details}
    data = bson.encode(document)
    shape = compile_shape(data)
    found = shape.read(data) if shape is not None else None

    assert found is None or found == as_encoded(data)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\x01b", "aéb"[:2] + "é", "\u2028"])
def test_text_that_is_written_otherwise_is_left_to_the_encoder(text: str) -> None:
    size = len(text.encode())
    shape = shape_of(SECOND | {"performed_by": "x" * size})

    assert shape.read(bson.encode(SECOND | {"performed_by": text})) is None
    assert shape.read(bson.encode(SECOND | {"performed_by": "\x7f" * size})) is not None


@pytest.mark.parametrize(
    "document",
    [
        SECOND | {"details": {"count": 1.5}},
        SECOND | {"details": {"count": Int64(5)}},
        SECOND | {"details": {"$oid": "x"}},
        SECOND | {"details": {'a"b': 1}},
        SECOND | {"details": {"": 1}},
        SECOND | {"details": {"a": {"b": {"c": {"d": 1}}}}},
        SECOND | {"writer": SECOND["writer"] | {"seq": "5"}},
        SECOND | {"writer": {name: value for name, value in SECOND["writer"].items() if name != "key"}},
        SECOND | {"created_at": "now"},
        {name: value for name, value in SECOND.items() if name != "created_at"},
        {name: value for name, value in SECOND.items() if name != "writer"},
        SECOND | {"_id": 7},
        {},
    ],
)
def test_of_what_no_writer_writes_there_is_no_shape(document: Document) -> None:
    assert compile_shape(bson.encode(document)) is None


@pytest.mark.parametrize("names", [("a%b", "c%%d"), ("%s", "%(x)s")])
def test_a_name_is_no_format(names: tuple[str, str]) -> None:
    data = bson.encode(SECOND | {"details": dict.fromkeys(names, "100%")})
    shape = compile_shape(data)

    assert shape is not None
    assert shape.read(data) == as_encoded(data)


def test_a_field_twice_has_no_shape_and_matches_none() -> None:
    twice = doubled(SECOND, "outcome", "denied").raw

    assert compile_shape(twice) is None
    assert compile_shape(bson.encode(SECOND | {"details": doubled({"a": 1}, "a", 2)})) is None


def learned(count: int, data: bytes = DATA) -> Shapes:
    shapes = Shapes()
    for _ in range(count):
        shapes.learn(data)
    return shapes


def test_a_shape_is_learned_when_it_is_often_there() -> None:
    assert learned(OFTEN - 1).read(DATA) is None
    assert learned(OFTEN).read(DATA) == as_encoded(DATA)
    assert learned(OFTEN).read(DATA + b"\0") is None


def test_a_shape_that_reads_otherwise_than_the_encoder_is_not_learned() -> None:
    odd = bson.encode(SECOND | {"performed_by": "a\\b"})

    assert learned(64, odd).read(odd) is None


def test_there_are_only_so_many_shapes() -> None:
    shapes = Shapes()
    alike = [bson.encode(SECOND | {"details": {name: 1}}) for name in "abcdefgh"]
    for data in alike * 64:
        if shapes.read(data) is None:
            shapes.learn(data)
    assert sum(shapes.read(data) is not None for data in alike) == MAX_ALIKE

    many = [bson.encode(SECOND | {"performed_by": "x" * size}) for size in range(1, MAX_SHAPES + 20)]
    for data in many:
        for _ in range(OFTEN):
            shapes.learn(data)
    known = [shapes.read(data) is not None for data in (*alike, *many)]
    assert sum(known) in (MAX_SHAPES, MAX_SHAPES + 1)  # one of many is as long as those that are alike


def test_records_are_the_same_with_and_without_a_shape() -> None:
    """Among others that have none: the order is that of the ways, and everything is there once."""
    entries = signed(*([ENTRY] * 3 * OFTEN))
    strange = SECOND | {"_id": "cd" * 16, "details": {"count": 1.5}}
    data = [*map(bson.encode, entries), bson.encode(strange), doubled(SECOND, "outcome", "x").raw]
    numbers = [bson.encode(entry | {"created_at": DatetimeMS(NOON)}) for entry in entries]

    first, second = list(read_records(data)), list(read_records(data))

    assert sorted(first, key=repr) == sorted(second, key=repr)
    assert len(second) == len(entries) + 2
    expected = [(ID, to_record(entry | {"created_at": DatetimeMS(NOON)})) for entry in entries]
    assert sorted(read_records(numbers), key=repr) == sorted(expected, key=repr)
    assert ("cd" * 16, to_record(strange | {"created_at": DatetimeMS(NOON)})) in second
    assert (ID, UNREADABLE) in second
