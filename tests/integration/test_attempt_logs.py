"""Every log line of an attempt carries the ids of its job, whoever writes it; no other line does."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog
from deployment import Deployment
from waiting import wait_until

from compliance.jobs.job import Job
from compliance.jobs.run import Run
from worker import intake
from worker.attempt import carry_out
from worker.job import JOBS, Payload
from worker.services import Services
from worker.telemetry import configure_logging

TRACE = "0af7651916cd43dd8448eb211c80319c"
SHORT = timedelta(milliseconds=300)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log of this process, the driver's own lines included."""
    root, driver = logging.getLogger(), logging.getLogger("pymongo.command")
    before, levels = root.handlers[:], (root.level, driver.level)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("INFO")
    root.setLevel("DEBUG")
    driver.setLevel("DEBUG")
    yield stream
    root.handlers[:] = before
    root.setLevel(levels[0])
    driver.setLevel(levels[1])
    structlog.reset_defaults()


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def record(deployment: Deployment, request_id: str) -> Job:
    services = deployment.services()
    message = intake.Message(
        kind=JOBS["audit.verify"], values={}, request_id=request_id, traceparent=f"00-{TRACE}-b7ad6b7169203331-01"
    )
    return intake.record(intake.admit(message, services), services)


def test_lines_of_ours_of_the_driver_and_of_the_heartbeat_carry_the_ids(
    deployment: Deployment, lines: io.StringIO
) -> None:
    services = replace(deployment.services(), settings=deployment.settings.model_copy(update={"lease": SHORT}))
    first, second = record(deployment, "r-1"), record(deployment, "r-2")

    def work(payload: Payload, run: Run, services: Services) -> None:
        del payload, services
        began = len(lines.getvalue())
        wait_until(lambda: "findAndModify" in lines.getvalue()[began:], timeout=10, what="the lease is renewed")
        logging.getLogger("a.library").info("half-way in %s", run.job.kind)

    kind = replace(JOBS["audit.verify"], work=work)
    for job in (first, second):
        carry_out(kind, job.request_id, services=services, on_progress=lambda _: None)
    found = read(lines)
    starts = [index for index, line in enumerate(found) if line["event"] == "job.started"]
    ends = [index for index, line in enumerate(found) if line["event"] == "job.done"]

    assert len(starts) == len(ends) == 2
    for job, start, end in zip((first, second), starts, ends, strict=True):
        during = found[start : end + 1]
        ids = {"request_id": job.request_id, "kind": "audit.verify", "attempt": 1, "trace_id": TRACE}
        assert {"a.library", "pymongo.command", "worker.attempt"} <= {line["logger"] for line in during}
        assert [line for line in during if {name: line.get(name) for name in ids} != ids] == []
    assert [line for line in found[: starts[0]] + found[ends[0] + 1 : starts[1]] if "trace_id" in line] == []
