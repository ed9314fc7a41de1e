"""Hold a step back between its batches."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import PyMongoError

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
        blind: The factors that this user may not look at, or that there are none of here.
    """

    databases: Databases
    clock: Clock
    factors: Mapping[str, Factor] = field(default_factory=lambda: FACTORS)
    canary: Canary | None = None
    crowd: Crowd = field(default_factory=Crowd)
    reasons: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    told_at: dict[str, datetime] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
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
            if self._is_news(found.reasons, moment.now):
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
        readings = {}
        for name, factor in self.factors.items():
            if name in self.blind:
                continue
            try:
                readings[name] = factor.read(self.databases)
            except PyMongoError as error:
                _ride_through(error)
                self.blind.add(name)
        self.seen, self.seen_at = readings, now
        return readings


def _ride_through(error: PyMongoError) -> None:
    """Raise what passes by itself, for the step to wait and look again."""
    if isinstance(translate(error), StoreUnavailable):
        raise translate(error) from None
