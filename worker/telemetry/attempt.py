"""One attempt at a job, as people see it: its ids on every log line and error report, its ending and its duration."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

import sentry_sdk
from structlog.contextvars import bound_contextvars

from compliance.errors import TransientError
from compliance.jobs.job import Job
from worker.telemetry import metrics
from worker.telemetry.sentry import Monitor, Status, check_in, report_error


class Ending(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    REJECTED = "rejected"
    PARKED = "parked"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HANDED_BACK = "handed_back"
    LEASE_LOST = "lease_lost"
    CRASHED = "crashed"


# The others are no end of the run: somebody goes on with it.
STATUS: dict[Ending, Status] = {
    Ending.DONE: "ok",
    Ending.REJECTED: "error",
    Ending.PARKED: "error",
    Ending.CANCELLED: "error",
}


@contextmanager
def observed(job: Job, *, now: datetime, monitor: Monitor | None = None) -> Iterator[Callable[[Ending], None]]:
    """Name *job* in every log line and error report of the block; count and measure how the block says that it ended.

    A block that raises a bug has crashed, and its error is reported. One that says nothing is not counted.

    Args:
        job: The job as it was claimed.
        now: When it was.
        monitor: The schedule that asked for it; Sentry hears of begin and end.

    Yields:
        What the block tells its ending, once.
    """
    ids = {"request_id": str(job.request_id), "kind": job.kind, "trace_id": job.terms.trace_id}
    tags = {name: value for name, value in ids.items() if value is not None}
    began = time.monotonic()

    def end(ending: Ending) -> None:
        seconds = time.monotonic() - began
        metrics.ATTEMPTS.inc(job.kind, ending.value)
        metrics.DURATION.observe(seconds, job.kind)
        if job.fence == 1:  # the first claim ever
            metrics.WAIT.observe(max(0.0, (now - job.created_at).total_seconds()), job.kind)
        if monitor is not None and ending in STATUS:
            check_in(monitor, STATUS[ending], seconds=seconds)

    with bound_contextvars(**tags, attempt=job.attempts), sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        if monitor is not None:
            check_in(monitor, "in_progress")
        try:
            yield end
        except TransientError:  # what became of it could not be recorded: it is taken over when its lease has run out
            end(Ending.LEASE_LOST)
            raise
        except Exception as error:
            report_error(error, kind=job.kind, request_id=job.request_id)
            end(Ending.CRASHED)
            raise
