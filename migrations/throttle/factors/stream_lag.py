"""How far the watcher is behind with the change events that we cause.

A token that is old because the watcher is not running says nothing of us: it is not waited for.
"""

from datetime import timedelta

from compliance.mongo import Databases
from migrations.throttle.factor import FACTORS, Factor, Moment

MOST = timedelta(seconds=120)
ABSENT = timedelta(minutes=15)


def read(databases: Databases) -> float:
    """Return the age of the oldest token in seconds; 0 without a watcher."""
    now = databases.server_time()
    tokens = databases.compliance["watch_tokens"].find({}, {"updated_at": 1})
    ages = [(now - token["updated_at"]).total_seconds() for token in tokens]
    return max((age for age in ages if age < ABSENT.total_seconds()), default=0.0)


def judge(age: float, _: Moment) -> str | None:
    """Wait until it has caught up."""
    return f"the watcher is {age:.0f} s behind" if age > MOST.total_seconds() else None


FACTORS.add("stream_lag", Factor(read=read, judge=judge))
