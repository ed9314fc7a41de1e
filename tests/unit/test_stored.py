"""What counts as an entry is all that the bytes hold, or nothing."""

import struct
from datetime import UTC, datetime

import bson
import pytest
from bson import DatetimeMS, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.stored import RAW, read_stored

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: "\0" not in name), inner),
    max_leaves=8,
)


def joined(*elements: tuple[str, object]) -> bytes:
    """Return a document of *elements*, also where two have the same name."""
    body = b"".join(bson.encode({name: value})[4:-1] for name, value in elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: "\0" not in name), PLAIN))
def test_a_document_is_read_as_it_was_written(document: dict[str, object]) -> None:
    data = bson.encode(document)

    assert read_stored(data) == read_stored(RawBSONDocument(data, RAW)) == document


def test_the_width_of_a_number_and_a_time_of_no_calendar_are_kept() -> None:
    document = {"_id": ObjectId(), "n": Int64(1), "t": DatetimeMS(2**62)}

    assert read_stored(bson.encode(document)) == document


def test_times_come_as_dates_or_as_numbers() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    data = bson.encode({"at": moment})

    assert read_stored(data) == {"at": moment}
    assert read_stored(data, times_as_numbers=True) == {"at": DatetimeMS(moment)}


@pytest.mark.parametrize(
    "data",
    [
        joined(("a", 1), ("b", 2), ("a", 1)),
        joined(("a", {"b": 1}), ("c", bson.decode(b"\5\0\0\0\0"))) + b"\0",
        joined(("outer", RawBSONDocument(joined(("a", 1), ("a", 2))))),
        joined(("list", [1, RawBSONDocument(joined(("a", "x"), ("a", "y")))])),
        bson.encode({"a": "xyz"}).replace(b"xyz", b"x\xffz"),
        bson.encode({"a": 1})[:-1],
        b"",
    ],
    ids=["twice", "bytes behind", "nested", "in a list", "no UTF-8", "cut", "empty"],
)
def test_what_is_not_shown_by_decoding_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the document"):
        read_stored(data)
