"""When a person must have an answer, and how that may move; pure.

Source: GDPR Art. 12(3): one month from receipt, extended by two further months where necessary, if the person is told
within the first month, with the reasons.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from compliance.errors import InvalidPayload
from compliance.period import ONE_MONTH, Period

LONGEST_EXTENSION = 2  # months
NOTICES = (1, 5, 10)  # days before the due date at which people are told


class Reason(StrEnum):
    """Why an answer may take longer; the two that the law knows."""

    COMPLEXITY = "complexity"
    NUMBER_OF_REQUESTS = "number_of_requests"


def extended_due(received: datetime, *, months: int, due: datetime, now: datetime) -> datetime:
    """Return the due date of a request that is extended by *months*, reckoned from its receipt.

    Args:
        received: When the request came in.
        months: Beyond the first one, 1 or 2.
        due: The present due date.
        now: Within a month of *received*.

    Raises:
        InvalidPayload: When the first month is over, or the request would not be due later than it is.
    """
    if not 1 <= months <= LONGEST_EXTENSION:
        raise InvalidPayload(f"months: expected 1 to {LONGEST_EXTENSION} (GDPR Art. 12(3))")
    told_by = ONE_MONTH.after(received)
    if now >= told_by:
        raise InvalidPayload(
            f"the first month ended on {told_by:%Y-%m-%d}: the person had to be told of an extension before "
            "(GDPR Art. 12(3)); answer the request now"
        )
    later = Period(months=1 + months).after(received)
    if later <= due:
        raise InvalidPayload(f"the request is due {due:%Y-%m-%d} already, which is no earlier")
    return later


def days_left(due: datetime, *, now: datetime) -> int | None:
    """Return the smallest notice that *due* has reached: 10, 5 or 1 days, 0 when it has passed; None before them."""
    if due < now:
        return 0
    return next((days for days in NOTICES if due < now + timedelta(days=days)), None)
