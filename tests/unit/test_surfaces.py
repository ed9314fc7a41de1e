"""What is concluded from what a server tells of its oplog and its profiler."""

from datetime import UTC, datetime, timedelta

import pytest

from compliance.erasure.surface import OPLOG, Level, State, clean, level_of
from compliance.erasure.surfaces import PROVISION, Scope, judge_oplog, judge_profile, look_at_surfaces
from compliance.errors import ConfigurationError, StepRefused, StoreUnavailable

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
LAST = datetime(2026, 3, 31, tzinfo=UTC)
WINDOW = LAST - FIRST
SCOPE: Scope = object()  # type: ignore[assignment]  # what these looks never look at


def oplog_date(*, filled: float, least: timedelta = timedelta(0), last: datetime = LAST) -> datetime | None:
    found = judge_oplog(FIRST, last, filled=filled, least=least, done_at=last)
    assert found.state is State.EXPIRES
    return found.expires_at


def test_a_full_oplog_loses_what_is_as_old_as_its_window() -> None:
    assert oplog_date(filled=1.0) == LAST + WINDOW
    assert oplog_date(filled=1.2) == LAST + WINDOW  # it may be larger than it should


def test_an_oplog_that_is_half_full_lasts_twice_as_long() -> None:
    assert oplog_date(filled=0.5) == LAST + 2 * WINDOW


def test_nothing_leaves_before_the_least_retention() -> None:
    assert oplog_date(filled=1.0, least=2 * WINDOW) == LAST + 2 * WINDOW
    assert oplog_date(filled=1.0, least=WINDOW / 2) == LAST + WINDOW


def test_a_date_beyond_the_calendar_is_its_last() -> None:
    end = oplog_date(filled=0.0)

    assert end is not None
    assert end.year == 9999


def test_an_oplog_is_clean_only_when_it_begins_after_the_erasure() -> None:
    later = LAST + timedelta(hours=1)

    assert judge_oplog(LAST, later, filled=1, least=timedelta(0), done_at=LAST).state is State.EXPIRES
    assert judge_oplog(later, later, filled=1, least=timedelta(0), done_at=LAST).state is State.CLEAN


def test_the_evidence_names_window_and_least_retention() -> None:
    found = judge_oplog(FIRST, LAST, filled=1, least=timedelta(hours=36), done_at=LAST)

    assert found.evidence.startswith(
        "the oplog reached from 2026-03-01T00:00:00Z to 2026-03-31T00:00:00Z, with a least retention of 36 hours"
    )


@pytest.mark.parametrize(
    ("found", "others", "state", "todo"),
    [
        (0, 0, State.CLEAN, None),
        (1, 0, State.UNKNOWN, "system.profile.drop()"),
        (1, 2, State.UNKNOWN, "system.profile.drop()"),
        (0, 2, State.UNKNOWN, "on the 2 other members"),
    ],
)
def test_a_profiler_is_clean_only_where_every_member_was_looked_at(
    found: int, others: int, state: State, todo: str | None
) -> None:
    surface = judge_profile(1, found, others=others)

    assert surface.state is state
    assert (todo or "") in str(surface.todo)


@pytest.mark.parametrize(
    ("error", "todo"),
    [(ConfigurationError("no right"), PROVISION), (StepRefused("code 59"), "ask the administrator of the servers")],
)
def test_a_look_that_is_refused_is_unknown_and_holds_nothing_up(error: Exception, todo: str) -> None:
    def look(_: Scope) -> None:
        raise error

    found = look_at_surfaces(SCOPE, [(OPLOG, look), ("other", lambda _: clean("other", "seen"))])  # type: ignore[list-item]

    assert [(surface.name, surface.state) for surface in found] == [(OPLOG, State.UNKNOWN), ("other", State.CLEAN)]
    assert found[0].todo == todo
    assert level_of(found) is Level.E2


def test_a_server_that_does_not_answer_is_asked_again_later() -> None:
    def look(_: Scope) -> None:
        raise StoreUnavailable("MongoDB does not answer")

    with pytest.raises(StoreUnavailable):
        look_at_surfaces(SCOPE, [(OPLOG, look)])  # type: ignore[list-item]
