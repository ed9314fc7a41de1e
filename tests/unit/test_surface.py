"""What is known of a place beside the collections, and how far an erasure has come with it."""

from datetime import datetime

import pytest

from compliance.erasure.surface import ENGINE, OUTSIDE, Level, State, Surface, clean, expires, level_of, unknown

ALL = sorted(ENGINE | OUTSIDE)


def all_clean_but(*others: Surface) -> list[Surface]:
    names = {other.name for other in others}
    return [*(clean(name, "seen") for name in ALL if name not in names), *others]


def test_nothing_left_anywhere_is_the_highest_level() -> None:
    assert level_of(all_clean_but()) is Level.E4


@pytest.mark.parametrize("name", sorted(ENGINE))
def test_whatever_the_engine_still_keeps_holds_the_level_down(name: str, moment: datetime) -> None:
    assert level_of(all_clean_but(expires(name, moment, "seen"))) is Level.E2
    assert level_of(all_clean_but(unknown(name, "seen", todo="look"))) is Level.E2
    assert level_of([surface for surface in all_clean_but() if surface.name != name]) is Level.E2


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_backups_and_packages_hold_the_last_level_back(name: str, moment: datetime) -> None:
    assert level_of(all_clean_but(expires(name, moment, "seen"))) is Level.E3
    assert level_of(all_clean_but(unknown(name, "seen", todo="look"))) is Level.E3
    assert level_of([surface for surface in all_clean_but() if surface.name != name]) is Level.E3


@pytest.mark.parametrize("state", State)
def test_a_date_goes_with_what_expires_and_advice_with_what_nobody_knows(state: State, moment: datetime) -> None:
    fitting = {
        State.CLEAN: (None, None),
        State.EXPIRES: (moment, None),
        State.UNKNOWN: (None, "look"),
    }
    for expires_at in (None, moment):
        for todo in (None, "look"):
            if (expires_at, todo) == fitting[state]:
                Surface(name="oplog", state=state, evidence="seen", expires_at=expires_at, todo=todo)
                continue
            with pytest.raises(ValueError, match="a surface"):
                Surface(name="oplog", state=state, evidence="seen", expires_at=expires_at, todo=todo)
