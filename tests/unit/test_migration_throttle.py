"""Whether a migration goes on or waits, and how it says how far it is."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import InvalidPayload
from migrations.progress import Pacer, Progress
from migrations.throttle.canary import slow
from migrations.throttle.control import Control
from migrations.throttle.decide import Go, Pace, Pause, decide
from migrations.throttle.factor import Factor, Moment
from migrations.throttle.factors import FACTORS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PACE = Pace(size=100, took=timedelta(seconds=0.25), most=1000)


def moment(canary: float | None = None, **control: Any) -> Moment:
    return Moment(control=Control(**control), now=NOON, canary=canary, is_alone=canary is None)


def at(hour: int, minute: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute)


@pytest.mark.parametrize(
    ("name", "reading", "when", "expected"),
    [
        ("manual", None, moment(), None),
        ("manual", None, moment(paused=True), "paused by a person"),
        ("window", None, moment(), None),
        ("window", None, moment(window="12:00-12:01"), None),
        ("window", None, moment(window="11:00-12:00"), "outside of the window 11:00-12:00 UTC"),
        ("replica_lag", 2.0, moment(), None),
        ("replica_lag", 2.1, moment(), "a secondary is 2.1 s behind (at most 2)"),
        ("replica_lag", 2.1, moment(max_lag_seconds=3), None),
        ("flow_control", False, moment(), None),
        ("flow_control", True, moment(), "flow control"),
        ("cache_pressure", 0.15, moment(), None),
        ("cache_pressure", 0.16, moment(), "16% of the cache is dirty (at most 15%)"),
        ("stream_lag", 120.0, moment(), None),
        ("stream_lag", 121.0, moment(), "the watcher is 121 s behind"),
        ("oplog_window", (60.0, False), moment(), None),
        ("oplog_window", (3600.0, True), moment(), None),
        ("oplog_window", (3540.0, True), moment(), "the oplog reaches back 59 min only (at least 60: "),
        ("oplog_window", (59.0, True), moment(min_oplog_minutes=1), "(at least 1: "),
        ("oplog_window", (60.0, True), moment(min_oplog_minutes=1), None),
        ("oplog_window", (0.0, True), moment(min_oplog_minutes=0), None),
        ("canary", None, moment(), None),
        ("canary", None, moment(canary=2.0), None),
        ("canary", None, moment(canary=2.1), "small writes take 2.1 times as long"),
    ],
)
def test_a_factor_says_wait_beyond_its_bound_and_why(
    name: str, reading: Any, when: Moment, expected: str | None
) -> None:
    said = FACTORS[name].judge(reading, when)

    assert said is None if expected is None else said is not None and expected in said


def fixed(reason: str | None) -> Factor:
    return Factor(read=lambda _: None, judge=lambda _reading, _moment: reason)


@given(
    said=st.dictionaries(st.text(min_size=1, max_size=3), st.none() | st.text(min_size=1, max_size=9), max_size=6),
    blind=st.sets(st.text(min_size=1, max_size=3)),
)
def test_any_factor_wins_and_one_that_could_not_be_read_says_nothing(
    said: Mapping[str, str | None], blind: set[str]
) -> None:
    factors = {name: fixed(reason) for name, reason in said.items()}
    readings = dict.fromkeys(set(said) - blind)

    found = decide(readings, factors, moment(), PACE)

    reasons = tuple(reason for name, reason in said.items() if reason is not None and name in readings)
    assert found == (Pause(reasons=reasons) if reasons else Go(batch=100))


@given(
    size=st.integers(1, 5000),
    took=st.none() | st.integers(0, 10_000),
    most=st.integers(1, 5000),
    target=st.floats(0.01, 10),
)
def test_a_batch_is_never_empty_never_beyond_the_limit_and_smaller_after_a_slow_one(
    size: int, took: int | None, most: int, target: float
) -> None:
    pace = Pace(size=size, took=None if took is None else timedelta(milliseconds=took), most=most)

    found = decide({}, {}, moment(batch_seconds=target), pace)

    assert isinstance(found, Go)
    assert 1 <= found.batch <= most
    if took is None:
        assert found.batch == min(size, most)
    elif took > target * 1000 and size > 1:
        assert found.batch <= size


@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        ("22:00-06:00", at(23), True),
        ("22:00-06:00", at(22), True),
        ("22:00-06:00", at(5, 59), True),
        ("22:00-06:00", at(6), False),
        ("22:00-06:00", at(21, 59), False),
        ("06:00-22:00", at(6), True),
        ("06:00-22:00", at(22), False),
        (None, at(3), True),
    ],
)
def test_a_window_may_go_over_midnight(window: str | None, now: datetime, expected: bool) -> None:  # noqa: FBT001
    assert Control(window=window).is_within_window(now) is expected


@pytest.mark.parametrize(
    "values",
    [
        {"batch_seconds": 0.0009},
        {"beside_seconds": 0},
        {"beside_seconds": 10.1},
        {"batch_seconds": 10.1},
        {"batch_seconds": float("nan")},
        {"max_lag_seconds": 0},
        {"max_lag_seconds": -1},
        {"max_lag_seconds": float("nan")},
        {"min_oplog_minutes": -1},
        {"min_oplog_minutes": float("nan")},
        {"window": "24:00-06:00"},
        {"window": "22-06"},
        {"window": "22:00-06:60"},
        {"window": ""},
    ],
)
def test_a_setting_out_of_its_range_is_refused(values: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidPayload):
        Control(**values)


def test_the_slow_writes_decide_and_not_one_that_was_slower_than_all() -> None:
    assert slow((0.01,) * 19 + (9.0,)) < 1
    assert slow((0.01,) * 15 + (0.5,) * 5) == pytest.approx(0.5)
    assert slow((0.0,) * 20) == 0.001


def test_progress_says_rate_and_time_left_once_there_is_one() -> None:
    began = Progress.of_place({"of": 1000}, what="walk things")
    half = Progress.of_place({"of": 1000, "documents": 400, "seconds": 2.0}, what="walk things")
    beyond = Progress.of_place({"of": 10, "documents": 40, "seconds": 2.0}, what="walk things")

    assert (began.line, began.rate, began.seconds_left) == ("walk things: 0 of 1000 documents", None, None)
    assert (half.rate, half.seconds_left) == (200.0, 3.0)
    assert half.line == "walk things: 400 of 1000 documents, 200 a second, 3 s left"
    assert (beyond.seconds_left, beyond.line) == (None, "walk things: 40 of about 10 documents, 20 a second")


def test_progress_that_waits_says_why_and_no_time() -> None:
    held = {"of": 1000, "documents": 400, "seconds": 2.0, "per_second": 100.0, "waiting": ["replica lag", "by hand"]}

    progress = Progress.of_place(held, what="walk things")

    assert progress.line == "walk things: 400 of 1000 documents, waiting: replica lag; by hand"
    assert (progress.rate, progress.seconds_left) == (100.0, 6.0)


def test_progress_tells_what_is_done_at_the_moment() -> None:
    place = {"of": 10, "documents": 10, "per_second": 5.0, "phase": "follow"}
    place["doing"] = {"phase": "compare", "documents": 4, "per_second": None}

    progress = Progress.of_place(place, what="rebuild things")

    assert (progress.phase, progress.documents, progress.seconds_left) == ("compare", 4, None)
    assert progress.line == "rebuild things, compare: 4 of 10 documents"


def test_the_rate_is_the_present_one_with_what_is_waited() -> None:
    began = datetime(2026, 3, 31, 12, tzinfo=UTC)
    pacer, place = Pacer(began), {"documents": 0}
    rates = []

    for second, documents in ((1, 1000), (2, 2000), (62, 2060), (122, 2120)):
        place["documents"] = documents
        place |= pacer.note(place, now=began + timedelta(seconds=second))
        rates.append(place.get("per_second"))

    assert rates[:2] == [None, 1000]  # of the first batch nobody knows what it began with
    assert 40 < rates[2] < 60
    assert 1 < rates[3] < 4
