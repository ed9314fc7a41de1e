"""``year_v1``: of a date its year, as the first moment of it in UTC."""

from datetime import UTC, datetime
from typing import Any

from compliance.masking.strategy import STRATEGIES


def year(value: Any, key: bytes) -> datetime | None:  # noqa: ARG001 - the form of every strategy
    """Return the first moment of the year of the date *value*; null for what is none."""
    if not isinstance(value, datetime):
        return None
    there = value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime(there.astimezone(UTC).year, 1, 1, tzinfo=UTC)


STRATEGIES.add("year_v1", year)
