"""What times say about a log, and which of them are believed."""

from datetime import UTC, datetime, timedelta

import pytest

from compliance.audit.verification.times import Times, milliseconds

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def times() -> Times:
    return Times(milliseconds(NOW))


def ms(ago: timedelta) -> int:
    return milliseconds(NOW - ago)


@pytest.mark.parametrize(
    ("after", "was_there", "why"),
    [
        (10 * MINUTE, True, None),
        (10 * MINUTE + SECOND, True, "it says that it was sealed in the future"),
        (10 * MINUTE + SECOND, False, None),
    ],
)
def test_a_seal_of_the_future_is_none(after: timedelta, was_there: bool, why: str | None) -> None:  # noqa: FBT001
    assert times().take_seal(NOW + after, was_there=was_there) == why


def test_a_seal_is_compared_with_the_one_before() -> None:
    found = times()

    assert found.take_seal(NOW - 20 * MINUTE, was_there=True) is None
    assert found.take_seal(NOW - 30 * MINUTE, was_there=True) is None
    assert found.take_seal(NOW - 40 * MINUTE - SECOND, was_there=True) is not None
    assert found.take_seal(NOW - 40 * MINUTE, was_there=True) is None
    found.recall_seal(NOW)
    assert found.take_seal(NOW - 10 * MINUTE - SECOND, was_there=True) is not None


def test_a_seal_of_the_future_is_nothing_to_compare_with() -> None:
    found = times()
    found.take_seal(NOW - MINUTE, was_there=True)
    found.take_seal(NOW + 60 * MINUTE, was_there=True)

    assert found.take_seal(NOW - MINUTE, was_there=True) is None


def test_an_entry_is_not_much_older_than_what_was_sealed_before_nor_younger_than_its_seal() -> None:
    found, sealed_at = times(), ms(0 * SECOND)

    assert found.take(ms(20 * MINUTE), sealed_at) is None
    assert found.take(ms(30 * MINUTE), sealed_at) is None
    assert found.take(ms(30 * MINUTE + SECOND), sealed_at) == "entries that were sealed before it have a later time"
    assert found.take(ms(-10 * MINUTE), sealed_at) is None
    assert found.take(ms(-10 * MINUTE - SECOND), sealed_at) == "its time is later than that of its seal"
    assert found.latest == ms(-10 * MINUTE)


def test_only_what_is_signed_and_not_of_the_future_counts_as_written() -> None:
    found = times()
    found.take(ms(20 * MINUTE), ms(0 * SECOND))
    assert found.signed == 0

    found.sign()
    assert found.signed == ms(20 * MINUTE)
    found.take(ms(-11 * MINUTE), ms(-11 * MINUTE))
    found.sign()
    assert found.signed == ms(20 * MINUTE)
    found.recall(ms(30 * MINUTE))
    assert (found.signed, found.latest) == (ms(20 * MINUTE), ms(-11 * MINUTE))
    found.recall(ms(10 * MINUTE))
    assert found.signed == ms(10 * MINUTE)


@pytest.mark.parametrize(
    ("sealed", "written", "is_late"),
    [
        (MINUTE, MINUTE, False),
        (MINUTE + SECOND, MINUTE, True),
        (-9 * MINUTE, 11 * MINUTE, False),
        (-9 * MINUTE, 11 * MINUTE + SECOND, True),
    ],
)
def test_what_no_checkpoint_signs_is_late_after_a_minute_whatever_its_batch_says(
    sealed: timedelta,
    written: timedelta,
    is_late: bool,  # noqa: FBT001
) -> None:
    found = times()
    found.take_seal(NOW - sealed, was_there=True)
    found.take(ms(written), ms(sealed))
    assert found.is_late is is_late

    found.take_seal(NOW, was_there=True)
    found.take(ms(0 * SECOND), ms(0 * SECOND))
    assert found.is_late is is_late
    found.sign()
    assert not found.is_late


def test_nothing_is_not_late() -> None:
    assert not times().is_late


@pytest.mark.parametrize(
    "moments", [[], [20], [20, 25, 15], [20, 31, 20], [-9], [-11, 5], [-10, 0], [30, 20, 10, 0], [40]]
)
@pytest.mark.parametrize("sealed", [-20, 0, 25])
def test_the_times_of_a_batch_are_taken_together_as_one_by_one(moments: list[int], sealed: int) -> None:
    one_by_one, together = times(), times()
    for found in (one_by_one, together):
        found.take(ms(25 * MINUTE), ms(0 * MINUTE))
    written, sealed_at = [ms(moment * MINUTE) for moment in moments], ms(sealed * MINUTE)

    expected = [(number, one_by_one.take(moment, sealed_at)) for number, moment in enumerate(written)]

    assert together.take_all(written, sealed_at) == [(number, why) for number, why in expected if why is not None]
    one_by_one.sign()
    together.sign()
    assert together == one_by_one


def test_a_batch_of_which_nothing_is_there_says_nothing() -> None:
    found = times()

    assert found.take_all([], ms(0 * MINUTE)) == []
    assert found == times()
