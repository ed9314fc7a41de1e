"""Time as a dependency: nothing else in the project asks the machine for it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


def to_milliseconds(moment: datetime) -> datetime:
    """Cut *moment* to the precision BSON keeps, so that what is compared is what is stored."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Clock(Protocol):
    """Reads and waits for wall-clock time."""

    def now(self) -> datetime:
        """Return the time in UTC, cut to milliseconds."""
        ...

    def sleep(self, duration: timedelta) -> None:
        """Wait at least *duration*."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The clock of this machine; leases and deadlines use the server's clock instead."""

    def now(self) -> datetime:
        """Return the time in UTC, cut to milliseconds."""
        return to_milliseconds(datetime.now(UTC))  # noqa: TID251 - this is the one place

    def sleep(self, duration: timedelta) -> None:
        """Wait at least *duration*."""
        time.sleep(duration.total_seconds())  # noqa: TID251 - this is the one place
