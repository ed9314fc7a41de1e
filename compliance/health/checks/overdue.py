"""No request of a person is past its due date or close to it, and no job is past its deadline."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from compliance.erasure.deadline import NOTICES, days_left
from compliance.erasure.stage import NEXT, REQUESTS
from compliance.health.check import CHECKS, Finding, Scope
from compliance.jobs.desk import UNFINISHED
from compliance.jobs.ledger import JOBS
from compliance.mongo import Databases, Document, driver_errors

# An erasure takes minutes. One that is open ten days before its due date waits for a person, who needs working days.
NOTICE = timedelta(days=max(NOTICES))
LISTED = 100


def overdue(scope: Scope) -> Finding:
    """Compare due dates and deadlines with the time of the server: told at 10, 5 and 1 days, and when they are past.

    A plan (``dry_run``) has no date to keep.
    """
    databases, now = scope.databases, scope.databases.server_time()
    requests: Document = {"state": {"$in": [stage.value for stage in NEXT]}, "dry_run": {"$ne": True}}
    if scope.subject_id is not None:
        requests["subject_id"] = scope.subject_id
    problems = [
        f"erasure request {name} {_when(due, now)}"
        for name, due in _late(databases, REQUESTS, requests, field="due_at", until=now + NOTICE)
    ]
    looked_at = _count(databases, REQUESTS, requests)
    if scope.subject_id is None:  # a job does not say whom it is about
        jobs: Document = {"state": {"$in": [state.value for state in UNFINISHED]}}
        problems += [
            f"job {name} has missed its deadline {_text(deadline)}"
            for name, deadline in _late(databases, JOBS, jobs, field="deadline", until=now)
        ]
        looked_at += _count(databases, JOBS, jobs)
    return Finding(problems=tuple(problems), looked_at=looked_at)


def _late(
    databases: Databases, collection: str, query: Document, *, field: str, until: datetime
) -> Iterator[tuple[str, datetime]]:
    """Yield id and date of what is not done by *until*, the oldest first: as many as a person can look at."""
    late = query | {field: {"$lt": until}}
    with driver_errors():
        for found in databases.compliance[collection].find(late, {field: 1}, sort={field: 1}, limit=LISTED):
            yield found["_id"], found[field]


def _count(databases: Databases, collection: str, query: Document) -> int:
    with driver_errors():
        return databases.compliance[collection].count_documents(query)


def _when(due: datetime, now: datetime) -> str:
    left = days_left(due, now=now)
    if not left:
        return f"was due {_text(due)}"
    return f"is due {_text(due)}, in less than {left} day{'s' if left > 1 else ''}"


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


CHECKS.add("overdue", overdue)
