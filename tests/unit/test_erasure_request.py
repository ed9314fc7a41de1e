"""Deadlines, and where a request can go from where it stands."""

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.erasure.deadline import days_left, extended_due
from compliance.erasure.stage import COMPLETE, NEXT, Stage, due_date, may_become
from compliance.errors import InvalidPayload
from compliance.period import parse_grace

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as the strategy asks


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-01-31", "2026-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2026-03-31", "2026-04-30"),
        ("2026-12-31", "2027-01-31"),
        ("2026-12-01", "2027-01-01"),
        ("2026-02-28", "2026-03-28"),
        ("2028-02-29", "2028-03-29"),
    ],
)
def test_an_answer_is_due_one_month_later(received: str, due: str) -> None:
    assert due_date(datetime.fromisoformat(f"{received}T12:30:00Z")) == datetime.fromisoformat(f"{due}T12:30:00Z")


@given(MOMENTS)
def test_it_is_the_same_day_of_the_next_month_unless_that_is_shorter(received: datetime) -> None:
    due = due_date(received)
    last = calendar.monthrange(due.year, due.month)[1]

    assert timedelta(days=28) <= due - received <= timedelta(days=31)
    assert (due.year * 12 + due.month) - (received.year * 12 + received.month) == 1
    assert due.day == min(received.day, last)
    assert due.timetz() == received.timetz()


@given(first=MOMENTS, second=MOMENTS)
def test_who_asks_later_is_never_due_earlier(first: datetime, second: datetime) -> None:
    earlier, later = sorted((first, second))

    assert due_date(earlier).date() <= due_date(later).date()


@pytest.mark.parametrize("stage", [*COMPLETE, Stage.REJECTED])
def test_no_way_leads_out_of_an_end(stage: Stage) -> None:
    assert NEXT.get(stage, ()) == ()


ALLOWED = {
    "received": "accepted rejected withdrawn",
    "accepted": "planned rejected withdrawn",
    "planned": "grace executing replanned rejected withdrawn",
    "grace": "executing replanned rejected withdrawn",
    "replanned": "executing replanned failed rejected withdrawn",
    "executing": "executing verifying residual_found replanned failed rejected withdrawn",
    "verifying": "executing residual_found replanned failed withdrawn completed completed_with_retention",
    "residual_found": "replanned rejected withdrawn",
    "failed": "replanned rejected withdrawn",
}


@pytest.mark.parametrize("source", Stage)
@pytest.mark.parametrize("target", Stage)
def test_every_move_is_allowed_or_forbidden_as_the_table_says(source: Stage, target: Stage) -> None:
    assert may_become(source, target) == (target.value in ALLOWED.get(source.value, "").split())


def test_every_stage_is_reached_and_only_by_a_second_look_it_is_complete() -> None:
    reached, todo = {Stage.RECEIVED}, [Stage.RECEIVED]
    while todo:
        for target in NEXT.get(todo.pop(), ()):
            if target not in reached:
                reached.add(target)
                todo.append(target)

    assert reached == set(Stage)
    assert {source for source, targets in NEXT.items() if set(targets) & set(COMPLETE)} == {Stage.VERIFYING}


def test_what_was_found_again_is_planned_anew_and_never_complete_from_there() -> None:
    assert NEXT[Stage.RESIDUAL_FOUND] == (Stage.REPLANNED, Stage.REJECTED, Stage.WITHDRAWN)


RECEIVED = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("months", "due"), [(1, "2026-03-31"), (2, "2026-04-30")])
def test_an_extension_is_reckoned_from_the_receipt(months: int, due: str) -> None:
    found = extended_due(RECEIVED, months=months, due=due_date(RECEIVED), now=RECEIVED)

    assert found == datetime.fromisoformat(f"{due}T12:00:00Z")


@pytest.mark.parametrize("months", [0, 3, -1])
def test_nobody_extends_by_more_than_the_law_allows(months: int) -> None:
    with pytest.raises(InvalidPayload, match="expected 1 to 2"):
        extended_due(RECEIVED, months=months, due=due_date(RECEIVED), now=RECEIVED)


def test_an_extension_must_come_within_the_first_month() -> None:
    end = due_date(RECEIVED)
    extended_due(RECEIVED, months=1, due=end, now=end - timedelta(milliseconds=1))

    with pytest.raises(InvalidPayload, match="the first month ended on 2026-02-28"):
        extended_due(RECEIVED, months=1, due=end, now=end)


def test_an_extension_extends() -> None:
    once = extended_due(RECEIVED, months=1, due=due_date(RECEIVED), now=RECEIVED)

    assert extended_due(RECEIVED, months=2, due=once, now=RECEIVED) > once
    with pytest.raises(InvalidPayload, match="due 2026-03-31 already"):
        extended_due(RECEIVED, months=1, due=once, now=RECEIVED)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (timedelta(days=10), None),
        (timedelta(days=10) - timedelta(seconds=1), 10),
        (timedelta(days=5), 10),
        (timedelta(days=5) - timedelta(seconds=1), 5),
        (timedelta(days=1), 5),
        (timedelta(days=1) - timedelta(seconds=1), 1),
        (timedelta(), 1),
        (timedelta(seconds=-1), 0),
    ],
)
def test_people_are_told_ten_five_and_one_days_before_and_at_the_breach(left: timedelta, told: int | None) -> None:
    assert days_left(RECEIVED + left, now=RECEIVED) == told


@pytest.mark.parametrize("text", ["P0D", "P1D", "P27D"])
def test_a_time_of_grace_is_some_days(text: str) -> None:
    assert str(parse_grace(text)) == text


@pytest.mark.parametrize("text", ["P28D", "P1M", "P1Y", "three days", ""])
def test_a_time_of_grace_cannot_outlast_the_month(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_grace(text)
