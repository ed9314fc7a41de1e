"""Begin again where an error that passes has ended a run: as a successor of oneself, under a lease of its own.

Steps that commit batches ride such errors through by themselves; commands on schemas, counts and looks at roles do not,
and the driver repeats few of them. The lease is given back and taken anew, so that an attempt whose end nobody knows
can commit nothing any more once the next one has read where it stands.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from compliance.clock import Clock
from compliance.errors import DuplicateEntry, LockHeld, StoreUnavailable
from compliance.mongo import Databases, Session

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.5), timedelta(seconds=8)  # in all longer than a lease

T = TypeVar("T")


def persist(attempt: Callable[[], T], *, clock: Clock, report: Callable[[str], object]) -> T:
    """Return what *attempt* returns; where MongoDB does not answer, or fails over, make it again.

    Args:
        attempt: Goes on where the one before stood. The lease of that one may still stand: it is waited for.
        clock: Waits.
        report: Told that it begins again.

    Raises:
        StoreUnavailable: When the last attempt ends so, too.
        LockHeld: When another process holds the lease.
    """
    pause = FIRST_PAUSE
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except StoreUnavailable as error:
            report(f"begin again: {error}")
        except LockHeld:
            if number == 1:
                raise
        clock.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return attempt()


def record_once(databases: Databases, effect: Callable[[Session], object], *, clock: Clock) -> None:
    """Carry out *effect*, which no lease fences, in one transaction; where MongoDB fails over, begin again.

    Args:
        databases: Where.
        effect: Appends its audit entry first: its event says whether an attempt committed whose answer was lost.
        clock: Waits.

    Raises:
        StoreUnavailable: When the last attempt ends so, too.
    """

    def attempt() -> None:
        with suppress(DuplicateEntry):
            databases.transact(effect)

    persist(attempt, clock=clock, report=lambda _: None)
