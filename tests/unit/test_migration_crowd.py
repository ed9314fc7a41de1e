"""Whether anybody else works on the servers, by what they count."""

from datetime import UTC, datetime, timedelta

import pytest

from migrations.throttle.control import Control
from migrations.throttle.crowd import LEAST, QUIET, Crowd
from migrations.throttle.decide import LEAST_BESIDE, RESTS, Go, Pace, decide
from migrations.throttle.factor import Moment
from migrations.throttle.factors import FACTORS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_nothing_is_known_before_a_second_has_passed() -> None:
    crowd = Crowd()

    crowd.look(1000, now=NOON)
    assert (crowd.rate, crowd.is_empty) == (None, False)
    crowd.look(1000, now=NOON + LEAST - timedelta(milliseconds=1))
    assert crowd.rate is None
    crowd.look(1000, now=NOON + LEAST)
    assert (crowd.rate, crowd.is_empty) == (0.0, True)


@pytest.mark.parametrize(("others", "is_empty"), [(0, True), (2 * QUIET, True), (2 * QUIET + 1, False)])
def test_operations_of_ours_are_not_those_of_others(others: int, is_empty: bool) -> None:  # noqa: FBT001
    crowd = Crowd(ours=50)
    crowd.look(1050, now=NOON)
    crowd.ours += 700

    crowd.look(1750 + int(others), now=NOON + timedelta(seconds=2))

    assert crowd.rate == others / 2
    assert crowd.is_empty is is_empty


def test_a_server_that_counts_anew_says_nothing_for_a_second() -> None:
    crowd = Crowd()
    crowd.look(1000, now=NOON)
    crowd.look(1000, now=NOON + LEAST)

    crowd.look(3, now=NOON + 2 * LEAST)
    assert not crowd.is_empty
    crowd.look(3, now=NOON + 3 * LEAST)
    assert crowd.is_empty


def test_beside_others_batches_are_shorter_and_rest_and_slow_writes_count() -> None:
    took = timedelta(seconds=Control().beside_seconds)
    pace = Pace(size=1000, took=took, most=10_000)
    beside, alone = (Moment(control=Control(), now=NOON, canary=9.0, is_alone=is_alone) for is_alone in (False, True))

    assert decide({}, {}, beside, pace) == Go(batch=1000, rest=RESTS * took)
    assert decide({}, {}, alone, pace) == Go(batch=2000)
    assert FACTORS["canary"].judge(None, beside) is not None
    assert FACTORS["canary"].judge(None, alone) is None


def test_a_person_may_make_batches_shorter_still() -> None:
    took = timedelta(seconds=0.004)
    pace = Pace(size=100, took=took, most=10_000)
    found = decide({}, {}, Moment(control=Control(batch_seconds=0.002), now=NOON), pace)

    assert found == Go(batch=50, rest=RESTS * took)


def test_a_person_may_make_them_longer() -> None:
    pace = Pace(size=1000, took=timedelta(seconds=0.1), most=10_000)

    assert decide({}, {}, Moment(control=Control(beside_seconds=0.15), now=NOON), pace) == Go(
        batch=1500, rest=timedelta(seconds=0.3)
    )


def test_beside_others_a_batch_is_never_little_else_than_its_commit() -> None:
    pace = Pace(size=LEAST_BESIDE, took=timedelta(seconds=0.1), most=10_000)

    assert decide({}, {}, Moment(control=Control(), now=NOON), pace) == Go(
        batch=LEAST_BESIDE, rest=timedelta(seconds=0.3)
    )


def test_after_a_batch_that_took_long_a_second_of_rest_is_enough() -> None:
    pace = Pace(size=1000, took=timedelta(seconds=9), most=10_000)

    assert decide({}, {}, Moment(control=Control(), now=NOON), pace) == Go(batch=500, rest=timedelta(seconds=1))
