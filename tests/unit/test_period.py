"""Periods are calendar periods: a month is no number of days."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.period import Period, parse_period


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("P1M", "2026-01-31", "2026-02-28"),
        ("P1M", "2028-01-31", "2028-02-29"),
        ("P1M", "2026-12-15", "2027-01-15"),
        ("P3M", "2026-11-30", "2027-02-28"),
        ("P10Y", "2028-02-29", "2038-02-28"),
        ("P1Y2M3D", "2026-01-31", "2027-04-03"),
        ("P35D", "2026-01-31", "2026-03-07"),
        ("P999Y", "9900-01-01", "9999-12-31T23:59:59.999999"),
        ("P99999D", "9900-01-01", "9999-12-31T23:59:59.999999"),
    ],
)
def test_a_period_ends_on_the_same_day_or_the_last_one(period: str, start: str, end: str) -> None:
    assert parse_period(period).after(day(start)) == day(end)


@pytest.mark.parametrize(
    ("period", "now", "then"),
    [
        ("P1M", "2026-03-31", "2026-02-28"),
        ("P1Y", "2026-03-31", "2025-03-31"),
        ("P35D", "2026-03-07", "2026-01-31"),
        ("P999Y", "0500-01-01", "0001-01-01"),
        ("P99999D", "0001-06-01", "0001-01-01"),
    ],
)
def test_what_is_older_than_a_period_was_before(period: str, now: str, then: str) -> None:
    assert parse_period(period).before(day(now)) == day(then)


@pytest.mark.parametrize("text", ["", "P", "1M", "P1", "P1H", "PT1H", "P1.5Y", "P-1D", "p1m", "P1D1Y", "P1M ", "P1Y\n"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a period"):
        parse_period(text)


@given(months=st.integers(0, 2000), days=st.integers(0, 9999))
def test_a_period_is_written_as_it_is_read(months: int, days: int) -> None:
    period = Period(months=months, days=days)

    assert parse_period(str(period)) == period


@given(
    start=st.integers(-(10**9), 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    days=st.integers(0, 9999),
)
def test_days_are_days(start: datetime, days: int) -> None:
    assert Period(days=days).after(start) - start == timedelta(days=days)
