"""The answer to a command is read as the bytes that it is."""

import bson
import pytest
from bson import Int64, ObjectId, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.answers import _read_cursor
from compliance.mongo import Document


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 99, 100, 101, 1001, 10_001])
def test_all_documents_of_an_answer_are_read(count: int) -> None:
    documents: list[Document] = [{"_id": number, "text": "x" * (number % 7)} for number in range(count)]

    for name in ("firstBatch", "nextBatch"):
        cursor_id, found = _read_cursor(bson.encode({name: documents, "id": Int64(2**62 + 1), "ns": "a.b"}))

        assert cursor_id == 2**62 + 1
        assert found == [bson.encode(document) for document in documents]


@given(st.permutations(["id", "ns", "firstBatch", "a", "b", "c", "d", "e", "f", "g"]))
def test_fields_in_any_order_are_read(names: list[str]) -> None:
    """Of another version of the server, for instance."""
    cursor: Document = {
        "id": Int64(7),
        "ns": "a.b",
        "firstBatch": [{"x": 1}],
        "a": 1.5,
        "b": ObjectId(),
        "c": Timestamp(1, 2),
        "d": {"y": [1]},
        "e": b"bytes",
        "f": None,
        "g": True,
    }

    assert _read_cursor(bson.encode({name: cursor[name] for name in names})) == (7, [bson.encode({"x": 1})])
