"""The slots of a schedule: the moments at which it is due; pure.

What falls into the hour that a zone skips in spring is due when that hour would have ended; what falls into the hour
that it repeats in autumn is due the first time. An expression with a star at the front of its minutes or hours follows
the time that passes instead: it has nothing in the skipped hour, and slots in both of the repeated ones.

Source: cron(8) of Debian, on changes of the local time, as cronsim follows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIELDS = 5

Unit = Literal["seconds", "minutes", "hours", "days"]


@dataclass(frozen=True, slots=True)
class Cron:
    """The moments that a cron expression of five fields names in a time zone."""

    expression: str
    zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}"

    def newest(self, now: datetime) -> datetime | None:
        """Return the newest slot that is not after *now*, in UTC; None where there was none in 50 years."""
        after = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        start = after.astimezone(find_zone(self.zone))
        if not self._follows_time and start.fold:
            # In the second of two equal hours, slots of the first one lie ahead by the clock on the wall.
            offsets = start.replace(fold=0).utcoffset(), start.utcoffset()
            start = start.replace(fold=0) + ((offsets[0] or timedelta()) - (offsets[1] or timedelta()))
        return next((slot for slot in self._walk(start, back=True) if slot <= now), None)

    def next(self, now: datetime) -> datetime | None:
        """Return the first slot after *now*, in UTC; None where there is none in 50 years."""
        start = now.astimezone(find_zone(self.zone))
        return next((slot for slot in self._walk(start, back=False) if slot > now), None)

    @property
    def _follows_time(self) -> bool:
        minutes, hours, *_ = self.expression.split()
        return minutes.startswith("*") or hours.startswith("*")

    def _walk(self, start: datetime, *, back: bool) -> Iterator[datetime]:
        return (slot.astimezone(UTC) for slot in CronSim(self.expression, start, reverse=back))


@dataclass(frozen=True, slots=True)
class Every:
    """Moments at a fixed distance, counted from 1970-01-01 UTC, so that every process finds the same ones."""

    count: int
    unit: Unit

    def __str__(self) -> str:
        return f"every {self.count} {self.unit}"

    def newest(self, now: datetime) -> datetime:
        """Return the newest slot that is not after *now*."""
        return EPOCH + (now - EPOCH) // self._period * self._period

    def next(self, now: datetime) -> datetime:
        """Return the first slot after *now*."""
        return self.newest(now) + self._period

    @property
    def _period(self) -> timedelta:
        return timedelta(**{self.unit: self.count})


When = Cron | Every


def due_slot(when: When, *, now: datetime, after: datetime) -> datetime | None:
    """Return the slot to carry out now, or None; of slots that were missed, the newest only.

    Args:
        when: The schedule.
        now: The present time.
        after: The last slot that was taken, or when the schedule began.
    """
    newest = when.newest(now)
    return newest if newest is not None and newest > after else None


def find_zone(name: str) -> tzinfo:
    """Return the time zone *name* of the IANA database.

    Raises:
        ValueError: When there is none of that name.
    """
    if name == "UTC":  # also where a machine has no time zone data
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            f"there is no time zone {name!r} on this machine; expected one such as Europe/Berlin"
        ) from None


def check_expression(expression: str) -> str:
    """Return *expression* with one space between its fields.

    Raises:
        ValueError: Unless it is a cron expression of five fields that names some moment.
    """
    fields = expression.split()
    if len(fields) != FIELDS:
        raise ValueError("expected five fields: minute, hour, day of month, month, day of week")
    try:
        named = next(CronSim(expression, EPOCH), None)
    except CronSimError as error:
        raise ValueError(str(error).lower()) from None
    if named is None:
        raise ValueError("names no moment in 50 years")
    return " ".join(fields)
