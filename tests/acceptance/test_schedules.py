"""Schedules as an operator meets them: real beats, a wrong file, the list, and the alert."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import ObjectId
from system import System

from worker.processes import run_processes

EVERY_SECONDS = 2
DUE_DATES = {"_id": {"$regex": "^due-dates "}}


def write(system: System, *entries: dict[str, Any]) -> str:
    path = system.home / "schedules.yaml"
    listed = [{"description": "A test."} | entry for entry in entries]
    path.write_text(yaml.safe_dump({"apiVersion": "schedules/v1", "schedules": listed}))
    return str(path)


def slots(system: System, name: str) -> list[datetime]:
    """The slots that a job was recorded for."""
    found = system.deployment.admin.compliance["jobs"].find({"_id": {"$regex": f"^schedule:{name}:"}})
    return sorted(datetime.fromisoformat(job["_id"].removeprefix(f"schedule:{name}:")) for job in found)


def test_two_beats_and_two_workers_make_one_job_of_each_slot(system: System) -> None:
    every = {"name": "beat", "task": "compliance.audit.heartbeat", "every": {"seconds": EVERY_SECONDS}}
    environ = {"COMPLIANCE_SCHEDULES": write(system, every), "COMPLIANCE_SWEEP_SECONDS": "0.2"}
    for number in range(2):
        logs = system.home / str(number)
        logs.mkdir()
        system.cleanup.enter_context(
            run_processes(
                ("worker", "beat"),
                environ=system.environ | environ,
                logs=logs,
                extra={"worker": ("--concurrency=1", "--without-mingle", f"--hostname=w{number}@%h")},
            )
        )
    heartbeats = {"action": "audit.heartbeat"}
    system.wait_for(lambda: len(system.deployment.entries(**heartbeats)) >= 5, "five beats")
    system.cleanup.close()
    entries = system.deployment.entries(**heartbeats)
    taken = slots(system, "beat")

    assert len(entries) == len({entry["request_id"] for entry in entries}) <= len(taken)
    assert {slot.timestamp() % EVERY_SECONDS for slot in taken} == {0}
    assert sent_by_both_beats(system.home) > 10


def sent_by_both_beats(home: Path) -> int:
    counts = [len(re.findall("compliance.jobs.sweep", (home / str(n) / "beat.log").read_text())) for n in range(2)]
    return min(counts)


@pytest.mark.parametrize("process", ["worker", "beat", "flower"])
def test_a_process_with_a_wrong_file_ends_with_one_line(shared: System, process: str) -> None:
    path = write(shared, {"name": "x", "task": "compliance.nothing", "cron": "0 3 * *", "timezone": "Europe/Atlantis"})
    done = shared.command("celery", "-A", "worker", process, COMPLIANCE_SCHEDULES=path)

    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    assert [fault in done.stderr for fault in ("x.task: ", "x.cron: ", "x.timezone: ")] == [True] * 3
    assert len(done.stderr.strip().splitlines()) == 1


def test_doctor_names_a_wrong_file(shared: System) -> None:
    shown = shared.compliance("doctor", expect=3, COMPLIANCE_SCHEDULES="/nowhere.yaml")

    assert "COMPLIANCE_SCHEDULES: cannot be read" in shown


def test_the_list_shows_when_each_runs_and_what_became_of_the_last(system: System) -> None:
    path = write(
        system,
        {"name": "often", "task": "compliance.audit.heartbeat", "every": {"seconds": 1}},
        {"name": "nightly", "task": "compliance.audit.verify", "cron": "0 3 * * *", "timezone": "Europe/Berlin"},
        {"name": "never", "task": "compliance.audit.verify", "cron": "0 3 * * *", "enabled": False},
    )
    system.start("worker", "beat", COMPLIANCE_SCHEDULES=path)
    system.wait_for(lambda: system.deployment.entries(action="audit.heartbeat"), "one run")
    listed = json.loads(system.compliance("schedule", "list", "--json", COMPLIANCE_SCHEDULES=path))
    shown = system.compliance("schedule", "list", COMPLIANCE_SCHEDULES=path)
    often, nightly, never = listed

    assert often["last_job"]["request_id"].startswith("schedule:often:")
    assert often["last_job"]["state"] in ("queued", "running", "done")
    assert (nightly["when"], nightly["last_slot"], nightly["last_job"]) == ("0 3 * * * Europe/Berlin", None, None)
    assert nightly["next_run"] is not None
    assert (never["enabled"], never["next_run"]) == (False, None)
    assert "disabled" in shown
    assert "0 3 * * * Europe/Berlin" in shown


def told(system: System) -> list[bytes]:
    """The reports of the check; beside them Sentry hears when a schedule begins and ends."""
    return [sent for sent in system.sentry.envelopes if b"health check overdue found 1 problems" in sent]


def test_an_overdue_request_reaches_the_person_on_call(system: System) -> None:
    admin = system.deployment.admin
    late = {"_id": "late", "subject_id": ObjectId(), "state": "residual_found", "dry_run": False}
    admin.compliance["erasure_requests"].insert_one(late | {"due_at": admin.server_time() - timedelta(days=1)})
    every = {"name": "due-dates", "task": "compliance.health.check", "every": {"days": 1}}
    path = write(system, every | {"payload": {"checks": ["overdue"], "cause": "schedule"}})
    system.start("worker", "beat", COMPLIANCE_SCHEDULES=path)
    schedules = admin.compliance["schedules"]
    system.wait_for(lambda: schedules.count_documents(DUE_DATES), "the schedule is known")
    schedules.update_one(DUE_DATES, {"$set": {"since": admin.server_time() - timedelta(days=3)}})
    system.wait_for(lambda: told(system), "Sentry hears of it")
    log = (system.home / "worker.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if '"health.failed"' in line]

    assert len(slots(system, "due-dates")) == 1
    assert [(line["level"], line["check"], line["problems"]) for line in lines] == [("error", "overdue", 1)]
    assert len(told(system)) == 1
