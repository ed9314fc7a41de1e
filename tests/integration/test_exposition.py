"""Prometheus reads from the main process what all its children counted, also those that are gone."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scrape import scrape, value

from compliance.errors import ConfigurationError
from worker.embedded.ports import pick_port
from worker.telemetry import metrics
from worker.telemetry.exposition import STREAMS, serve_watcher, serve_worker
from worker.telemetry.ledger import TokenAges
from worker.telemetry.metrics import ATTEMPTS, SWEEPS


@pytest.fixture
def worker_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = pick_port(None)
    stop = serve_worker("127.0.0.1", port, kinds=["audit.verify"])
    yield port
    stop()
    assert list(tmp_path.iterdir()) == []
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ  # noqa: TID251 - looked at, not read


def in_child(work: Callable[[], None]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0


def count_three() -> None:
    for _ in range(3):
        ATTEMPTS.inc("audit.verify", "done")
        metrics.DURATION.observe(0.3, "audit.verify")


# A worker forks beside the thread that serves, too; the child touches nothing that the thread locks.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_counts_begin_at_zero_and_add_up_over_processes_that_came_and_went(worker_port: int) -> None:
    before = value(scrape(worker_port), "compliance_job_attempts_total", kind="audit.verify", outcome="parked")
    for expected in (3, 6, 9):
        in_child(count_three)
        samples = scrape(worker_port)
        assert value(samples, "compliance_job_attempts_total", kind="audit.verify", outcome="done") == expected
        assert value(samples, "compliance_job_attempt_duration_seconds_count", kind="audit.verify") == expected
    ATTEMPTS.inc("audit.verify", "done")
    SWEEPS.inc()
    samples = scrape(worker_port)

    assert before == 0
    assert value(samples, "compliance_alerts_total", kind="audit.verify") == 0
    assert value(samples, "compliance_alerts_total", kind="health.check/overdue") == 0
    assert value(samples, "compliance_job_attempts_total", kind="audit.verify", outcome="done") == 10
    assert value(samples, "compliance_job_attempt_duration_seconds_bucket", kind="audit.verify", le="0.5") == 9
    assert value(samples, "compliance_sweeps_total") == 1


def test_a_watcher_serves_counts_from_zero_and_ages() -> None:
    ages, port = TokenAges(), pick_port(None)
    ages.mark("app")
    stop = serve_watcher("127.0.0.1", port, [ages], kinds=["health.check"])
    try:
        samples = scrape(port)
        with pytest.raises(ConfigurationError, match="each process needs a port of its own"):
            serve_watcher("127.0.0.1", port, [], kinds=[])
    finally:
        stop()

    assert value(samples, "compliance_watch_jobs_total", stream="app", kind="health.check") == 0
    assert value(samples, "compliance_watch_events_total", stream=STREAMS[1]) == 0
    assert value(samples, "compliance_audit_incidents_total", kind="DELETED") == 0
    assert 0 <= (value(samples, "compliance_watch_token_age_seconds", stream="app") or -1) < 60
    assert not [name for name, _ in samples if name.endswith("_created")]
    assert scrape(port) == {}
