"""A run that begins again where MongoDB did not answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from compliance.errors import DuplicateEntry, LeaseLost, LockHeld, StepFailed, StoreUnavailable
from compliance.mongo import Databases
from migrations.again import ATTEMPTS, persist, record_once

LEASE = timedelta(seconds=30)


@dataclass
class Waiting:
    """A clock that only notes how long it waited."""

    waited: list[timedelta] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC)

    def sleep(self, duration: timedelta) -> None:
        self.waited.append(duration)


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


GONE, HELD = StoreUnavailable("MongoDB does not answer"), LockHeld("held by ann:1")


def test_what_passes_is_tried_again_after_longer_and_longer_pauses() -> None:
    clock, lines = Waiting(), list[str]()

    done = persist(failing(GONE, GONE, HELD), clock=clock, report=lines.append)

    assert done == "done"
    assert clock.waited == [timedelta(seconds=seconds) for seconds in (0.5, 1, 2)]
    assert lines == ["begin again: MongoDB does not answer"] * 2


def test_what_works_at_once_waits_for_nothing() -> None:
    clock = Waiting()

    assert persist(failing(), clock=clock, report=print) == "done"
    assert clock.waited == []


def test_the_lease_of_another_process_ends_it_and_the_one_of_an_attempt_is_waited_for() -> None:
    clock = Waiting()

    with pytest.raises(LockHeld):
        persist(failing(HELD), clock=clock, report=print)
    assert clock.waited == []

    with pytest.raises(LockHeld):
        persist(failing(GONE, *[HELD] * ATTEMPTS), clock=clock, report=print)
    assert sum(clock.waited, timedelta()) > LEASE


@pytest.mark.parametrize("error", [StepFailed("correct the script"), LeaseLost("taken over")])
def test_what_does_not_pass_is_not_tried_again(error: Exception) -> None:
    clock = Waiting()

    with pytest.raises(type(error)):
        persist(failing(error), clock=clock, report=print)

    assert clock.waited == []


def test_a_server_that_stays_away_ends_it() -> None:
    clock = Waiting()

    with pytest.raises(StoreUnavailable):
        persist(failing(*[GONE] * ATTEMPTS), clock=clock, report=lambda _: None)

    assert len(clock.waited) == ATTEMPTS - 1


def test_a_record_whose_commit_was_not_answered_is_made_once() -> None:
    """A second attempt finds the entry of the first one."""
    attempt = failing(GONE, DuplicateEntry("recorded before"))
    calls: list[str] = []

    class Answerless(Databases):
        def transact(self, _work: Callable[[Any], Any]) -> Any:
            calls.append("transact")
            return attempt()

    databases = object.__new__(Answerless)
    record_once(databases, lambda _: None, clock=Waiting())

    assert len(calls) == 2
