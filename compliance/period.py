"""Calendar periods as laws and policies state them: ``P1M``, ``P10Y``, ``P35D``.

Source: ISO 8601, without times of day. A month later is the same day of that month, or its last one where it is
shorter: the reckoning of GDPR Art. 12(3) and Regulation 1182/71 Art. 3(2)(c).
"""

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_FORM = re.compile(r"P(?=\d)(?:(?P<years>\d{1,3})Y)?(?:(?P<months>\d{1,3})M)?(?:(?P<days>\d{1,5})D)?")
_YEAR = 12
LONGEST_GRACE_DAYS = 27  # a month of 28 days leaves one to do it
_LAST_YEAR = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Some months and some days.

    Attributes:
        months: Counted first, each to the same day of its month.
        days: Counted from there.
    """

    months: int = 0
    days: int = 0

    def after(self, moment: datetime) -> datetime:
        """Return the end of the period that begins at *moment*; the last moment that can be told at the latest."""
        year, month = divmod(moment.year * _YEAR + moment.month - 1 + self.months, _YEAR)
        if year > _LAST_YEAR:
            return datetime.max.replace(tzinfo=moment.tzinfo)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        try:
            return moment.replace(year=year, month=month + 1, day=day) + timedelta(days=self.days)
        except OverflowError:
            return datetime.max.replace(tzinfo=moment.tzinfo)

    def before(self, moment: datetime) -> datetime:
        """Return the latest moment whose period has ended at *moment*: what was then is as old as the period."""
        year, month = divmod(moment.year * _YEAR + moment.month - 1 - self.months, _YEAR)
        if year < 1:
            return datetime.min.replace(tzinfo=moment.tzinfo)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        try:
            return moment.replace(year=year, month=month + 1, day=day) - timedelta(days=self.days)
        except OverflowError:
            return datetime.min.replace(tzinfo=moment.tzinfo)

    def __str__(self) -> str:
        years, months = divmod(self.months, _YEAR)
        parts = ((years, "Y"), (months, "M"), (self.days, "D"))
        return "P" + ("".join(f"{count}{unit}" for count, unit in parts if count) or "0D")


ONE_MONTH = Period(months=1)


def parse_period(text: str) -> Period:
    """Return the period that *text* states.

    Raises:
        ValueError: When it states none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("expected a period of years, months and days, such as P10Y, P6M or P35D")
    years, months, days = (int(found[name] or 0) for name in ("years", "months", "days"))
    return Period(months=years * _YEAR + months, days=days)


def parse_grace(text: str) -> Period:
    """Return the time of grace before an erasure that *text* states.

    Raises:
        ValueError: When it states none, or one that could outlast the month in which a person must have an answer.
    """
    period = parse_period(text)
    if period.months or period.days > LONGEST_GRACE_DAYS:
        raise ValueError(f"expected at most P{LONGEST_GRACE_DAYS}D: the answer is due in a calendar month")
    return period
