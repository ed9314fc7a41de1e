"""A worker is told to stop, grows, or hangs: its job goes on elsewhere, and happens once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from consents import Consents
from deployment import Deployment
from system import System, children_of, filled_system

from compliance.roles import Role


@pytest.fixture
def system(deployment: Deployment, tmp_path: Path) -> Iterator[System]:
    with redis.Redis.from_url(deployment.stack.endpoints.redis_url) as broker:
        broker.flushall()
    with filled_system(deployment, tmp_path) as running:
        yield running


@contextmanager
def slowed(system: System, mode: Any, **data: Any) -> Iterator[None]:
    """Let commands of workers wait in the server."""
    configure = system.deployment.admin.client.admin.command
    found = {"blockConnection": True, "appName": Role.WORKER.value, **data}
    configure("configureFailPoint", "failCommand", mode=mode, data=found)
    try:
        yield
    finally:
        configure("configureFailPoint", "failCommand", mode="off")


def test_a_successor_goes_on_within_two_seconds_of_the_end_of_a_worker_that_was_told_to_stop(system: System) -> None:
    slow = {"COMPLIANCE_BATCH_DOCS": "1", "COMPLIANCE_LEASE_SECONDS": "600"}
    (first,) = system.start("worker", **slow).children
    with slowed(system, "alwaysOn", failCommands=["commitTransaction"], blockTimeMS=300):
        system.service().send_task(
            "compliance.erasure.request",
            kwargs={"subject_id": str(system.seeded.subjects[0]), "request_id": "r-1"},
            queue="compliance.erasure",
        )
        system.wait_for(lambda: (system.job("r-1").get("checkpoint") or {}).get("sequence"), "it works")
        log = len(first.log.read_text())
        system.start("worker", **slow)  # no beat: nothing but the hand-back can ring for it
        system.wait_for(lambda: "ready" in first.log.read_text()[log:], "the successor is ready")
        first.process.terminate()
        code = first.process.wait(30)
        system.wait_for(lambda: system.job("r-1")["fence"] == 2, "the successor goes on", timeout=2)
    system.wait_for(lambda: system.job("r-1")["state"] == "done", "the successor finishes")
    entries = system.deployment.entries(action="erasure.batch")
    planned = sum(step["documents"] for step in system.request("r-1")["plan"])

    assert code == 0
    assert "job.handed_back" in first.log.read_text()
    assert sum(entry["details"]["documents"] for entry in entries) == planned
    assert len(system.deployment.entries(action="erasure.completed")) == 1


@pytest.mark.storm
def test_a_process_of_the_pool_that_is_replaced_for_its_memory_loses_no_job(system: System) -> None:
    consents, sent = Consents(system), [f"r-{number}" for number in range(12)]
    (worker,) = system.start("worker", COMPLIANCE_CHILD_MEMORY_MB="1").children
    system.wait_for(lambda: len(children_of(worker.process.pid)) == 2, "the pool is there")
    pool = children_of(worker.process.pid)
    consents.send(sent)
    system.wait_for(lambda: consents.ended(sent) == len(sent), "all are done")
    system.wait_for(lambda: not pool & children_of(worker.process.pid), "every process of the pool is replaced")

    assert worker.process.poll() is None
    consents.assert_each_happened_once(sent)


def test_a_job_that_hangs_is_killed_and_goes_on_in_another_process(system: System) -> None:
    worker, _ = system.start("worker", "beat", COMPLIANCE_JOB_LIMIT_SECONDS="3").children
    audit_log = f"{system.deployment.name}_audit.audit_log"
    with slowed(system, {"times": 1}, failCommands=["find"], namespace=audit_log, blockTimeMS=10_000):
        system.service().send_task("compliance.audit.verify", kwargs={"request_id": "r-1"}, queue="compliance.audit")
        system.wait_for(lambda: system.job("r-1").get("state") == "done", "another process does it", timeout=30)

    assert "Hard time limit" in worker.log.read_text()
    assert system.job("r-1")["fence"] == 2
