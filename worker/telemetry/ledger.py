"""Gauges that are read from MongoDB when Prometheus asks: what waits, what is late.

Only unfinished jobs and open requests are looked at, by index, so the number of finished ones does not matter.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import pymongo
from prometheus_client import Metric
from prometheus_client.registry import Collector

from compliance.erasure.stage import NEXT, REQUESTS
from compliance.errors import ComplianceError
from compliance.jobs.job import State
from compliance.mongo import Databases, driver_errors
from worker.telemetry import metrics

UNFINISHED = (State.QUEUED, State.RUNNING, State.PARKED)
FRESH_SECONDS = 5.0
PATIENCE_SECONDS = 5.0
SHARE = 10  # a look that takes long is worth ten times as long, so that it costs a tenth of a core at most


class LedgerCollector(Collector):
    """Reads jobs and erasure requests, not more often than every few seconds."""

    def __init__(self, databases: Databases, kinds: Iterable[str]) -> None:
        self._databases = databases
        self._kinds = tuple(kinds)
        self._lock = threading.Lock()
        self._found: list[Metric] = []
        self._fresh_until = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask MongoDB."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the gauges; where MongoDB does not answer, only that."""
        with self._lock:
            began = time.monotonic()
            if began >= self._fresh_until:
                self._found = self._read()
                ended = time.monotonic()
                self._fresh_until = ended + max(FRESH_SECONDS, SHARE * (ended - began))
            return self._found

    def _read(self) -> list[Metric]:
        try:
            with pymongo.timeout(PATIENCE_SECONDS), driver_errors():
                rows = list(self._databases.compliance["jobs"].aggregate(unfinished_jobs()))
                overdue = list(self._databases.compliance[REQUESTS].aggregate(overdue_requests()))
        except ComplianceError:
            return [metrics.READABLE.family([((), 0)])]
        return [
            metrics.READABLE.family([((), 1)]),
            metrics.OVERDUE.family([((), overdue[0]["requests"] if overdue else 0)]),
            *self._jobs(rows),
        ]

    def _jobs(self, rows: Iterable[Mapping[str, Any]]) -> list[Metric]:
        jobs = {(kind, state.value): 0 for kind in self._kinds for state in UNFINISHED}
        oldest = dict.fromkeys(self._kinds, 0.0)
        late = dict.fromkeys(self._kinds, 0)
        for row in rows:
            kind = row["_id"]["kind"]
            if kind in oldest:  # a kind that this version does not know is no label
                jobs[kind, row["_id"]["state"]] = row["jobs"]
                oldest[kind] = max(oldest[kind], (row["due_ms"] or 0) / 1000)
                late[kind] += row["late"]
        return [
            metrics.JOBS.family(jobs.items()),
            metrics.OLDEST_DUE.family(((kind,), age) for kind, age in oldest.items()),
            metrics.PAST_DEADLINE.family(((kind,), count) for kind, count in late.items()),
        ]


def unfinished_jobs() -> list[dict[str, Any]]:
    """Return the aggregation of unfinished jobs by kind and state; all times are the server's."""
    due_at = {
        "$cond": [{"$eq": ["$state", State.RUNNING.value]}, "$lease.until", {"$ifNull": ["$run_at", "$created_at"]}]
    }
    is_waiting = {"$in": ["$state", [State.QUEUED.value, State.RUNNING.value]]}
    is_late = {"$and": [{"$gt": ["$deadline", None]}, {"$lt": ["$deadline", "$$NOW"]}]}
    return [
        {"$match": {"state": {"$in": [state.value for state in UNFINISHED]}}},
        {
            "$group": {
                "_id": {"kind": "$kind", "state": "$state"},
                "jobs": {"$sum": 1},
                "due_ms": {"$max": {"$cond": [is_waiting, {"$subtract": ["$$NOW", due_at]}, 0]}},
                "late": {"$sum": {"$cond": [is_late, 1, 0]}},
            }
        },
    ]


def overdue_requests() -> list[dict[str, Any]]:
    """Return the aggregation that counts open erasure requests whose due date has passed; a dry run has none."""
    is_past = {"$lt": ["$due_at", "$$NOW"]}
    is_open = {"state": {"$in": [stage.value for stage in NEXT]}, "dry_run": {"$ne": True}, "$expr": is_past}
    return [{"$match": is_open}, {"$count": "requests"}]


class TokenAges(Collector):
    """How long ago each stream of the watcher saved its token; by a clock that nobody sets."""

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}

    def mark(self, stream: str) -> None:
        """Note that *stream* begins, or has saved its token."""
        self._saved[stream] = time.monotonic()

    def describe(self) -> Iterable[Metric]:
        """Return nothing; see ``collect``."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the ages."""
        now = time.monotonic()
        yield metrics.TOKEN_AGE.family(((stream,), now - saved) for stream, saved in dict(self._saved).items())
