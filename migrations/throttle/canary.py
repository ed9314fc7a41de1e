"""A thread that writes one small document now and then, as an application would, and keeps how long it took."""

import statistics
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from compliance.clock import Clock
from compliance.errors import ComplianceError, StoreUnavailable
from compliance.mongo import Databases, driver_errors
from compliance.roles import CONTROL

EVERY = timedelta(milliseconds=100)
IDLE_WRITES, RECENT_WRITES = 20, 20
SLOWEST = 0.9  # of so few writes the 99th percentile is the slowest one, which says little


@dataclass(slots=True)
class Canary:
    """What the writes took, in seconds.

    Attributes:
        idle: The slow ones before the step began.
        recent: The last ones.
        written: How many there were beside the step.
    """

    databases: Databases
    clock: Clock
    idle: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_WRITES))

    written: int = 0

    def rest(self, since: int) -> None:
        """Take the last writes for the idle ones, where nothing of ours ran since *since* of them were written.

        Else a step would wait for ever where others became busier.
        """
        if self.written - since >= RECENT_WRITES:
            self.idle = slow(tuple(self.recent))

    @property
    def slower(self) -> float | None:
        """How many times slower the slow ones are than before; None while too few are known."""
        recent = tuple(self.recent)
        return slow(recent) / self.idle if self.idle and len(recent) == RECENT_WRITES else None

    def write(self) -> float:
        """Write once and return how long it took."""
        began = self.clock.now()
        with driver_errors():
            self.databases.compliance[CONTROL].update_one(
                {"_id": "canary"}, {"$currentDate": {"at": True}}, upsert=True
            )
        return (self.clock.now() - began).total_seconds()


def slow(seconds: tuple[float, ...]) -> float:
    """Return the 9th decile, at least a millisecond: below that the clock decides."""
    return max(0.001, statistics.quantiles(seconds, n=10)[-1])


@contextmanager
def watched(databases: Databases, clock: Clock) -> Iterator[Canary]:
    """Write before the block to know the idle time, and within it to see it rise."""
    canary = Canary(databases, clock)
    with suppress(StoreUnavailable):  # then it says nothing
        canary.idle = slow(tuple(canary.write() for _ in range(IDLE_WRITES)))
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(EVERY.total_seconds()):
            try:
                canary.recent.append(canary.write())
                canary.written += 1
            except ComplianceError:
                continue

    thread = threading.Thread(target=write, name="migration-canary", daemon=True)
    thread.start()
    try:
        yield canary
    finally:
        ended.set()
        thread.join()
