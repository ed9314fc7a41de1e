"""One request can be followed from the sender through logs, Sentry and Flower, by its ids and nothing else."""

import json
import re
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import oracle
import yaml
from system import System

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
IDS = {"request_id": "ticket-4711", "kind": "erasure.request", "trace_id": TRACE}


def ask(system: System, subject: Any) -> None:
    system.service().send_task(
        "compliance.erasure.request",
        kwargs={"subject_id": str(subject), "request_id": "ticket-4711"},
        queue="compliance.erasure",
        headers=HEADERS,
    )


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def reported(system: System, what: str = "event") -> list[dict[str, Any]]:
    """What Sentry got of one kind."""
    found = []
    for envelope in system.sentry.envelopes:
        parts = envelope.split(b"\n")
        headers = [json.loads(part) for part in parts[1:-1:2] if part.startswith(b"{")]
        found += [json.loads(body) for head, body in zip(headers, parts[2::2], strict=False) if head["type"] == what]
    return found


def test_the_trace_of_the_sender_is_in_every_log_line_and_error_report(system: System) -> None:
    subject = system.seeded.subjects[0]
    system.deployment.admin.app["newsletter"].insert_one({"to": oracle.email_of(system.seeded.documents, subject)})
    (child,) = system.start("worker").children
    ask(system, subject)
    system.wait_for(lambda: system.job("ticket-4711").get("state") == "parked", "it is parked")
    system.wait_for(lambda: reported(system), "Sentry hears of it")
    lines = [line for line in lines_of(child.log) if line.get("request_id") == "ticket-4711"]
    (event,) = reported(system)

    assert [line["event"] for line in lines] == ["job.started", "job.failed"]
    assert all({name: line.get(name) for name in IDS} == IDS and line["attempt"] == 1 for line in lines)
    assert event["tags"] == IDS
    assert event["fingerprint"] == ["erasure.request", "ErasureIncomplete"]


def test_a_run_of_a_schedule_checks_in_with_sentry_from_begin_to_end(system: System) -> None:
    path = system.home / "schedules.yaml"
    schedule = {"name": "hourly", "description": "A test.", "task": "compliance.audit.verify", "every": {"hours": 1}}
    path.write_text(yaml.safe_dump({"apiVersion": "schedules/v1", "schedules": [schedule]}))
    seen_before = {"_id": "hourly every 1 hours", "last_slot": None, "since": datetime(2026, 1, 1, tzinfo=UTC)}
    system.deployment.admin.compliance["schedules"].insert_one(seen_before)
    system.start("worker", COMPLIANCE_SCHEDULES=str(path))
    system.wait_for(lambda: len(reported(system, "check_in")) == 2, "Sentry hears of begin and end")
    begin, end = reported(system, "check_in")

    assert (begin["status"], end["status"]) == ("in_progress", "ok")
    assert begin["check_in_id"] == end["check_in_id"]
    assert (begin["monitor_slug"], end["monitor_slug"]) == ("hourly", "hourly")
    assert begin["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "hour"}
    assert end["duration"] > 0


def flower_task(system: System) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{system.flower_port}/api/tasks", timeout=10) as answer:
            tasks = json.loads(answer.read()).values()
    except OSError:
        return {}
    return next((task for task in tasks if task["name"] == "compliance.erasure.request"), {})


def test_flower_shows_how_far_a_job_is(system: System) -> None:
    system.start("worker", "flower", COMPLIANCE_BATCH_DOCS="1")
    url = f"http://127.0.0.1:{system.flower_port}/healthcheck"
    system.wait_for(lambda: answers(url), "Flower serves")
    ask(system, system.seeded.subjects[0])
    seen: list[dict[str, Any]] = []

    def is_on_its_way() -> bool:
        seen.append(flower_task(system))
        return seen[-1].get("state") == "PROGRESS" and bool(seen[-1]["result"])

    system.wait_for(is_on_its_way, "the work is seen half-way")
    system.wait_for(lambda: flower_task(system).get("state") == "SUCCESS", "the end is seen")

    assert re.fullmatch(r"step \d+ of \d+", seen[-1]["result"])
    assert (seen[-1]["args"], seen[-1]["kwargs"]) == ("<hidden>", "<hidden>")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
