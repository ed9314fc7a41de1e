"""``compliance jobs``: what people and machines are told of a job, and what they may ask of it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from quiet import quiet
from typer.testing import CliRunner

from compliance.errors import UnknownName
from compliance.jobs.job import RequestId, State
from compliance.settings import load_settings
from worker.cli import build_cli
from worker.intake import submit
from worker.tasks import JOBS

ID = RequestId("r-1")
LONG = timedelta(minutes=1)


class Command:
    """The command in this process, against the database of one test."""

    def __init__(self, deployment: Deployment, home: Path) -> None:
        settings = load_settings(deployment.environ(home))
        self._runtime = quiet(settings)

    def __call__(self, *arguments: str) -> str:
        done = CliRunner().invoke(build_cli(), ["jobs", *arguments], obj=self._runtime, env={"COLUMNS": "200"})
        if done.exception is not None:
            raise done.exception
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def jobs(deployment: Deployment, tmp_path: Path) -> Command:
    for kind, request_id in (("audit.verify", ID), ("health.check", "r-2")):
        submit(JOBS[kind], {}, request_id=request_id, origin="test", services=deployment.services())
    return Command(deployment, tmp_path)


def run(deployment: Deployment, **changes: Any) -> None:
    """Let a worker have the job and come as far as *changes* say."""
    ledger = deployment.services().ledger
    assert ledger.claim(ID, owner="host:7:a", lease=LONG) is not None
    ledger.jobs.update_one({"_id": ID}, {"$set": changes})


def test_who_works_on_a_job_and_how_far_it_is_can_be_seen(deployment: Deployment, jobs: Command) -> None:
    waiting = jobs.json("show", ID)
    run(deployment, checkpoint={"step": 3, "steps": 29})
    running = jobs.json("show", ID)

    assert (waiting["progress"], waiting["owner"], waiting["lease_until"]) == (None, None, None)
    assert (running["progress"], running["owner"], running["origin"]) == ("step 3 of 29", "host:7:a", "test")
    assert running["lease_until"] is not None
    assert len(running["trace_id"]) == 32
    assert "running, step 3 of 29" in jobs("list")


def test_a_wish_that_is_not_heard_yet_can_be_seen(deployment: Deployment, jobs: Command) -> None:
    run(deployment)
    before = jobs.json("show", ID)["asked"]
    jobs("park", ID)

    assert (before, jobs.json("show", ID)["asked"]) == (None, "park")
    assert "running, asked to park" in jobs("list")


def test_jobs_of_one_kind_are_listed_alone_and_a_wrong_kind_is_refused(jobs: Command) -> None:
    listed = {kind: [job["request_id"] for job in jobs.json("list", "--kind", kind)] for kind in ("health.check",)}

    assert listed == {"health.check": ["r-2"]}
    assert jobs.json("list", "--kind", "health.check", "--state", "done") == []
    assert jobs.json("list", "--kind", "unknown") == []
    with pytest.raises(UnknownName, match=r"known: audit\.heartbeat"):
        jobs("list", "--kind", "health.chek")


def test_machines_are_told_what_became_of_a_job(deployment: Deployment, jobs: Command) -> None:
    parked, queued, cancelled = (jobs.json(ask, ID) for ask in ("park", "retry", "cancel"))

    assert [job["state"] for job in (parked, queued, cancelled)] == [State.PARKED, State.QUEUED, State.CANCELLED]
    assert [job["finished_at"] is None for job in (parked, queued, cancelled)] == [False, True, False]
    assert jobs.json("show", ID) == cancelled


def test_a_parked_job_that_is_parked_again_is_called_so(jobs: Command) -> None:
    said = jobs("park", ID)

    assert said == "parked: r-1\n"
    with pytest.raises(UnknownName, match="'r-1' is parked already"):
        jobs("park", ID)
