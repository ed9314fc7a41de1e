"""What an error of the server says of a batch, and how large the next one is."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import BulkWriteError, ExecutionTimeout, OperationFailure, WriteError

from migrations.ops.faults import DocumentRefused, refusals
from migrations.throttle.size import next_size


def meet(error: OperationFailure) -> None:
    with refusals():
        raise error


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (121, "the validator does not allow it"),
        (10334, "larger than 16 MB"),
        (14, "wrong type"),
        (77777, "refused by the server"),
    ],
)
def test_a_write_that_is_refused_for_good_says_its_code_and_never_its_text(code: int, reason: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        meet(WriteError("mara@example.org is not allowed", code))

    assert (refused.value.code, refused.value.reason) == (code, reason)
    assert "mara" not in str(refused.value)


def test_the_code_of_a_bulk_is_that_of_its_first_write() -> None:
    with pytest.raises(DocumentRefused) as refused:
        meet(BulkWriteError({"writeErrors": [{"code": 121, "errmsg": "no"}]}))

    assert refused.value.code == 121


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("too old", 251),
        OperationFailure("conflict", 112),
        OperationFailure("not allowed", 13),
        ExecutionTimeout("too long", 50),
        OperationFailure("unheard of", 424242, {"errorLabels": ["TransientTransactionError"]}),
    ],
)
def test_what_passes_by_itself_or_is_no_document_stays_as_it_is(error: OperationFailure) -> None:
    with pytest.raises(OperationFailure) as raised:
        meet(error)

    assert raised.value is error


@pytest.mark.parametrize("details", [{}, {"writeErrors": []}])
def test_a_bulk_without_a_code_is_refused_all_the_same(details: Mapping[str, Any]) -> None:
    with pytest.raises(DocumentRefused) as refused:
        meet(BulkWriteError(dict(details)))

    assert refused.value.code == 0


TARGET = timedelta(milliseconds=250)


@given(size=st.integers(1, 10_000), most=st.integers(1, 10_000), took=st.integers(0, 100_000))
def test_a_batch_is_at_least_one_at_most_the_limit_and_never_more_than_doubled(size: int, most: int, took: int) -> None:
    found = next_size(size, took=timedelta(milliseconds=took), target=TARGET, most=most)

    assert 1 <= found <= min(most, max(1, 2 * size))
    assert found >= min(most, size // 2)


@pytest.mark.parametrize(
    ("took", "expected"), [(0, 200), (100, 200), (125, 200), (200, 125), (250, 100), (500, 50), (5000, 50)]
)
def test_the_size_follows_the_time_of_the_last_batch(took: int, expected: int) -> None:
    assert next_size(100, took=timedelta(milliseconds=took), target=TARGET, most=1000) == expected
