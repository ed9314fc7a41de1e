"""The schedules as Sentry watches them: which run of which one a job is, and when the next is expected; pure."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from compliance.jobs.job import Job, Prefix
from worker.due import ORIGIN
from worker.schedule import Schedule
from worker.telemetry import Monitor

_REQUEST = re.compile(rf"{Prefix.SCHEDULE}([a-z0-9-]+):.+")
UNITS = {"days": "day", "hours": "hour", "minutes": "minute"}  # Sentry knows no seconds


def monitor_of(job: Job, schedules: Iterable[Schedule]) -> Monitor | None:
    """Return the run that *job* is, None where no schedule that Sentry can watch has asked for it.

    The name comes from the schedules, never from the message, and the run is the same in every attempt.
    """
    match = _REQUEST.fullmatch(job.request_id) if job.origin == ORIGIN else None
    for schedule in schedules if match else ():
        config = config_of(schedule)
        if match and schedule.name == match[1] and config is not None:
            run = hashlib.sha256(job.request_id.encode()).hexdigest()[:32]
            return Monitor(name=schedule.name, run=run, config=config)
    return None


def config_of(schedule: Schedule) -> dict[str, Any] | None:
    """Return when Sentry should expect runs of *schedule*, None where they are not whole minutes apart.

    Source: Sentry, "Crons", monitor configuration.
    """
    if schedule.cron is not None:
        return {"schedule": {"type": "crontab", "value": schedule.cron}, "timezone": schedule.timezone}
    ((unit, count),) = (schedule.every or {}).items()
    if unit == "seconds":
        unit, count, rest = "minutes", *divmod(count, 60)
        if rest:
            return None
    return {"schedule": {"type": "interval", "value": count, "unit": UNITS[unit]}, "timezone": "UTC"}
