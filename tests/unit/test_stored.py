"""What counts as an entry is all that the bytes hold, or nothing."""

from datetime import UTC, datetime

import bson
import pytest
from bson import DatetimeMS, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from doubled import doubled, joined
from entries import ENTRY, ID
from hypothesis import given
from hypothesis import strategies as st
from signing import TRUST, signed

from compliance.audit.stored import RAW, find_stored_fault, read_each, read_stored, split, stored_id

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: "\0" not in name), inner),
    max_leaves=8,
)


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


@pytest.mark.parametrize("strange", [None, "doubled", "no UTF-8", "too long"])
def test_several_documents_are_read_as_each_alone(strange: str | None) -> None:
    """Only what is not whole is left out, wherever it stands."""
    (entry,) = signed(ENTRY)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    found = {
        None: bson.encode(entry),
        "doubled": doubled(entry, "outcome", "denied").raw,
        "no UTF-8": bson.encode(entry).replace(b"success", b"\xff\xfe\xfdcess"),
        "too long": bson.encode(entry | {"at": DatetimeMS(2**62)}),
    }[strange]
    other = bson.encode({"_id": "ab" * 16, "at": moment})

    numbers = [(id_, document) for id_, document in read_each(other + found + other)]

    assert [id_ for id_, _ in numbers] == ["ab" * 16, ID, "ab" * 16]
    assert [document is not None for _, document in numbers] == [True, strange in (None, "too long"), True]
    assert numbers[0][1] == {"_id": "ab" * 16, "at": DatetimeMS(moment)}
    assert list(split(other + found + other)) == [other, found, other]


def test_an_id_is_what_the_server_finds_an_entry_by() -> None:
    (entry,) = signed(ENTRY)

    assert stored_id(bson.encode(entry)) == stored_id(RawBSONDocument(bson.encode(entry))) == ID
    assert stored_id(bson.encode({"_id": ID})) == ID
    assert stored_id(joined(("_id", ID), ("_id", "ab" * 16))) == ID
    for strange in (7, ObjectId(), ID[:-1], ID + "0", ID.upper().replace("0", "A"), {"_id": ID}):
        assert stored_id(bson.encode({"_id": strange})) is None
    assert stored_id(joined(("a", 1), ("_id", ID))) is None
    assert stored_id(b"") is None


def test_an_entry_of_which_there_is_more_than_is_shown_is_modified() -> None:
    (entry,) = signed(ENTRY)

    assert find_stored_fault(bson.encode(entry), TRUST) is None
    fault = find_stored_fault(doubled(entry, "outcome", "denied"), TRUST)
    assert fault == "MODIFIED it holds more than can be read, such as a field twice"
