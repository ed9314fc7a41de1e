"""Time buckets: the names and limits of the collections among which the documents of one are shared out; pure.

``analytics`` by month has the buckets ``analytics_2026_11``, ``analytics_2026_12``, ...; by year ``analytics_2026``; by
day ``analytics_2026_11_05``. A bucket holds what is dated from its start on and before that of the next one, in UTC.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

_FORMATS = {"year": "_%Y", "month": "_%Y_%m", "day": "_%Y_%m_%d"}
_PATTERNS = {"year": r"_\d{4}", "month": r"_\d{4}_\d{2}", "day": r"_\d{4}_\d{2}_\d{2}"}


class Every(StrEnum):
    """How long a bucket is."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"

    def start_of(self, moment: datetime) -> datetime:
        """Return the start of the bucket of *moment*, which has a time zone."""
        day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self is Every.DAY:
            return day
        return day.replace(day=1) if self is Every.MONTH else day.replace(month=1, day=1)

    def next(self, start: datetime) -> datetime:
        """Return the start of the bucket behind the one that begins at *start*."""
        return self.start_of(start + timedelta(days={Every.DAY: 1, Every.MONTH: 31, Every.YEAR: 366}[self]))

    def before(self, start: datetime, count: int) -> datetime:
        """Return the start of the bucket that is *count* before the one that begins at *start*."""
        for _ in range(count):
            start = self.start_of(start - timedelta(days=1))
        return start


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """One bucket of a collection."""

    start: datetime
    end: datetime
    name: str


def bucket_of(collection: str, every: Every, moment: datetime) -> Bucket:
    """Return the bucket of *collection* that holds what is dated *moment*."""
    start = every.start_of(moment)
    return Bucket(start, every.next(start), f"{collection}{start.strftime(_FORMATS[every])}")


def parse_bucket(collection: str, every: Every, name: str) -> Bucket | None:
    """Return the bucket that is called *name*; None for any other collection."""
    suffix = name.removeprefix(collection)
    if suffix == name or not re.fullmatch(_PATTERNS[every], suffix):
        return None
    try:
        start = datetime.strptime(suffix, _FORMATS[every]).replace(tzinfo=UTC)
    except ValueError:  # a thirteenth month
        return None
    return bucket_of(collection, every, start)


def buckets_between(collection: str, every: Every, since: date, until: date) -> Iterator[Bucket]:
    """Yield the buckets from that of *since* to that of *until*, both with their whole length."""
    bucket = bucket_of(collection, every, datetime(since.year, since.month, since.day, tzinfo=UTC))
    last = datetime(until.year, until.month, until.day, tzinfo=UTC)
    while bucket.start <= last:
        yield bucket
        bucket = bucket_of(collection, every, bucket.end)
