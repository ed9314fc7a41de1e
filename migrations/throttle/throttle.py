"""Hold a step back between its batches."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from compliance.clock import Clock
from compliance.errors import StoreUnavailable
from compliance.mongo import Databases, translate
from migrations.throttle.canary import Canary
from migrations.throttle.control import read_control
from migrations.throttle.crowd import PER_BATCH, Crowd, count_operations
from migrations.throttle.decide import Go, Pace, decide
from migrations.throttle.factor import Factor, Moment
from migrations.throttle.factors import FACTORS

RECHECK = timedelta(milliseconds=500)  # while it waits
FRESH = timedelta(seconds=1)  # how long a look at the servers counts while it works
TELL_EVERY = timedelta(seconds=5)  # of a reason that is the same but for its numbers
NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(slots=True, kw_only=True)
class Throttle:
    """Looks at every factor between two batches.

    Attributes:
        canary: Where small writes are measured, too.
        crowd: What others do meanwhile.
        reasons: Why the step waits now; empty while it works.
        told: What was last told of this wait.
        told_at: When each reason, without its numbers, was last told.
        seen: What the last look at the servers showed.
        unread: The factors that could not be read at the last look, by name, and why: they hold nothing back meanwhile.
        unread_told: Those that people were told of.
    """

    databases: Databases
    clock: Clock
    factors: Mapping[str, Factor] = field(default_factory=lambda: FACTORS)
    canary: Canary | None = None
    crowd: Crowd = field(default_factory=Crowd)
    reasons: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    told_at: dict[str, datetime] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    unread_told: set[str] = field(default_factory=set)
    seen: dict[str, Any] = field(default_factory=dict)
    seen_at: datetime | None = None

    def next_batch(
        self, pace: Pace, *, wait: Callable[[timedelta], None], told: Callable[[tuple[str, ...]], None]
    ) -> int:
        """Return how many documents the next batch looks at, as soon as no factor says wait.

        Args:
            pace: The batch before.
            wait: Waits, or raises where the run should end.
            told: Told the reasons when there is another one, and every few seconds where numbers in them change.
        """
        written = self.canary.written if self.canary is not None else 0
        self.crowd.ours += PER_BATCH
        while True:
            readings = self._readings()
            moment = Moment(
                control=read_control(self.databases),
                now=self.clock.now(),
                canary=self.canary.slower if self.canary is not None else None,
                is_alone=self.canary is None or self.crowd.is_empty,
            )
            self.crowd.ours += 1
            found = decide(readings, self.factors, moment, pace)
            if isinstance(found, Go):
                self.reasons = self.told = ()
                if found.rest:
                    wait(found.rest)
                return found.batch
            if self._is_news(found.reasons, moment.now) or self.unread.keys() != self.unread_told:
                told(found.reasons)
            self.reasons = found.reasons
            wait(RECHECK)
            if self.canary is not None:
                self.canary.rest(written)

    def _look_around(self, now: datetime) -> None:
        written = self.canary.written if self.canary is not None else 0
        try:
            total = count_operations(self.databases)
        except PyMongoError as error:
            _ride_through(error)  # else this user may not look: then others are there
        else:
            self.crowd.look(total - written, now=now)
            self.crowd.ours += 1  # the tokens of the watcher, which a factor reads

    def _is_news(self, reasons: tuple[str, ...], now: datetime) -> bool:
        """Whether to tell *reasons* now: who looks wants to know, and each time costs a commit."""
        kinds = {NUMBERS.sub("", reason) for reason in reasons}
        known = {kind for kind in kinds if kind in self.told_at and now - self.told_at[kind] < TELL_EVERY}
        if reasons == self.told or kinds == known:
            return False
        self.told = reasons
        self.told_at = {**self.told_at, **dict.fromkeys(kinds, now)}
        return True

    def _readings(self) -> dict[str, Any]:
        now = self.clock.now()
        if self.seen_at is not None and not self.reasons and now - self.seen_at < FRESH:
            return self.seen
        self._look_around(now)
        readings: dict[str, Any] = {}
        unread: dict[str, str] = {}
        for name, factor in self.factors.items():
            try:
                readings[name] = factor.read(self.databases)
            except PyMongoError as error:
                _ride_through(error)
                unread[name] = _why(error)
            except LookupError as error:  # this server does not tell it
                unread[name] = _why(error)
        self.seen, self.seen_at, self.unread = readings, now, unread
        return readings

    def news_of_unread(self) -> list[str]:
        """Return a line for people for each factor that cannot be read, or can again, once."""
        lost = [name for name in self.unread if name not in self.unread_told]
        found = sorted(self.unread_told - self.unread.keys())
        self.unread_told.update(lost)
        self.unread_told.difference_update(found)
        nothing = "which holds nothing back meanwhile"
        return [
            *(f"the throttle cannot read {name}, {nothing}: {self.unread[name]}" for name in lost),
            *(f"the throttle can read {name} again" for name in found),
        ]


def _why(error: Exception) -> str:
    """Return what went wrong, without the text of the server, which may quote."""
    found = error.details.get("codeName") if isinstance(error, OperationFailure) and error.details else None
    return str(found or type(error).__name__)


def _ride_through(error: PyMongoError) -> None:
    """Raise what passes by itself, for the step to wait and look again."""
    if isinstance(translate(error), StoreUnavailable):
        raise translate(error) from None
