"""Deadlines, and where a request can go from where it stands."""

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.erasure.stage import COMPLETE, NEXT, Stage, due_date

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


def test_every_stage_is_reached_and_only_by_work_it_is_complete() -> None:
    reached, todo = {Stage.RECEIVED}, [Stage.RECEIVED]
    while todo:
        for target in NEXT.get(todo.pop(), ()):
            if target not in reached:
                reached.add(target)
                todo.append(target)

    assert reached == set(Stage)
    assert {source for source, targets in NEXT.items() if set(targets) & set(COMPLETE)} == {Stage.EXECUTING}


def test_what_was_found_again_is_erased_again() -> None:
    assert NEXT[Stage.RESIDUAL_FOUND] == (Stage.EXECUTING, Stage.WITHDRAWN)
