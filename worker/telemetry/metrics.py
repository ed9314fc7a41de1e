"""Every metric of the processes: one table. Labels are bounded and never hold an id.

Off until ``switch_on``: then a call costs microseconds, before one comparison. Like the logs they belong to the whole
process, so the code that counts needs no handle.

Source: Prometheus, "Metric and label naming" and "Instrumentation".
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

DURATIONS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)
WAITS = (0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)


class Count:
    """A counter."""

    type = "counter"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels
        self._live: Counter | None = None

    def switch_on(self, registry: CollectorRegistry) -> None:
        """Count from now on."""
        self._live = Counter(self.name.removesuffix("_total"), self.meaning, self.labels, registry=registry)

    def switch_off(self) -> None:
        """Forget what was counted."""
        self._live = None

    def inc(self, *values: str, by: int = 1) -> None:
        """Count *by* more; *values* are those of the labels, in order."""
        if self._live is not None:
            (self._live.labels(*values) if values else self._live).inc(by)


class Distribution:
    """A histogram of seconds."""

    type = "histogram"

    def __init__(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...]) -> None:
        self.name, self.meaning, self.labels, self._buckets = name, meaning, labels, buckets
        self._live: Histogram | None = None

    def switch_on(self, registry: CollectorRegistry) -> None:
        """Measure from now on."""
        self._live = Histogram(self.name, self.meaning, self.labels, registry=registry, buckets=self._buckets)

    def switch_off(self) -> None:
        """Forget what was measured."""
        self._live = None

    def observe(self, seconds: float, *values: str) -> None:
        """Add one measurement; *values* are those of the labels, in order."""
        if self._live is not None:
            self._live.labels(*values).observe(seconds)


class Reading:
    """A gauge that is read when somebody asks."""

    type = "gauge"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels

    def family(self, rows: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
        """Return what Prometheus reads: values by the values of the labels."""
        found = GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in rows:
            found.add_metric(labels, value)
        return found


ATTEMPTS = Count("compliance_job_attempts_total", "Attempts at jobs that ended, by how they ended.", "kind", "outcome")
REFUSED = Count("compliance_messages_refused_total", "Messages that were wrong; no job came of them.", "kind")
DURATION = Distribution(
    "compliance_job_attempt_duration_seconds", "From the claim of a job to the end.", "kind", buckets=DURATIONS
)
WAIT = Distribution(
    "compliance_job_wait_seconds", "From the recording of a job to its first claim.", "kind", buckets=WAITS
)
UNPUBLISHED = Count("compliance_doorbells_unpublished_total", "Jobs that the broker was not told of.", "kind")
SWEEPS = Count("compliance_sweeps_total", "Looks for jobs that nobody works on.")
SWEPT = Count("compliance_swept_jobs_total", "Jobs that were published again.")
ALERTS = Count("compliance_alerts_total", "Runs of checks that found something, and that nobody waited for.", "kind")
WATCH_EVENTS = Count("compliance_watch_events_total", "Change events that were routed.", "stream")
WATCH_JOBS = Count("compliance_watch_jobs_total", "Jobs that change events asked for.", "stream", "kind")
INTERRUPTIONS = Count("compliance_watch_interruptions_total", "Times that a stream broke off.", "stream")
TOKEN_AGE = Reading(
    "compliance_watch_token_age_seconds", "Since the last saved token, or the start of the watcher.", "stream"
)
ANCHORED = Count(
    "compliance_anchor_pushes_total",
    "Checkpoints of the audit log, by what an anchor made of them.",
    "anchor",
    "outcome",
)
JOBS = Reading("compliance_jobs", "Jobs that are not finished.", "kind", "state")
OLDEST_DUE = Reading("compliance_oldest_due_job_age_seconds", "How long the oldest due job has been due.", "kind")
PAST_DEADLINE = Reading("compliance_jobs_past_deadline", "Unfinished jobs whose deadline has passed.", "kind")
OVERDUE = Reading("compliance_erasure_requests_overdue", "Open erasure requests whose due date has passed.")
READABLE = Reading("compliance_ledger_readable", "Whether MongoDB answered the last question: 1 or 0.")

SEALED = Count("compliance_audit_sealed_total", "Entries of the audit log that this watcher sealed.")
INCIDENTS = Count("compliance_audit_incidents_total", "Signs that somebody touched the audit database.", "kind")

WORKER_METRICS = (ATTEMPTS, REFUSED, DURATION, WAIT, UNPUBLISHED, SWEEPS, SWEPT, ALERTS)
WATCHER_COUNTS = (WATCH_EVENTS, WATCH_JOBS, SEALED, INCIDENTS, REFUSED, INTERRUPTIONS, UNPUBLISHED, ANCHORED)
WATCHER_READINGS = (TOKEN_AGE, JOBS, OLDEST_DUE, PAST_DEADLINE, OVERDUE, READABLE)
METRICS = tuple(dict.fromkeys((*WORKER_METRICS, *WATCHER_COUNTS, *WATCHER_READINGS)))


def switch_on(metrics: Iterable[Count | Distribution], registry: CollectorRegistry) -> None:
    """Count and measure *metrics* from now on."""
    for metric in metrics:
        metric.switch_on(registry)


def switch_off() -> None:
    """Count nothing any more."""
    for metric in (*WORKER_METRICS, *WATCHER_COUNTS):
        metric.switch_off()
