"""What Prometheus reads from the real processes is what happened, over pool processes and their deaths."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from scrape import Samples, scrape, value
from system import System, children_of

from worker.embedded.ports import pick_port
from worker.telemetry.exposition import FOLDER

DONE = {"kind": "erasure.request", "outcome": "done"}


def start(system: System, *names: str, **environ: str) -> tuple[int, Any]:
    port = pick_port(None)
    (child,) = system.start(
        *names, COMPLIANCE_METRICS_PORT=str(port), TMPDIR=str(system.home), TZ="UTC", **environ
    ).children
    return port, child


def ask(system: System, *request_ids: str) -> None:
    service = system.service()
    for subject, request_id in zip(system.seeded.subjects, request_ids, strict=False):
        service.send_task(
            "compliance.erasure.request",
            kwargs={"subject_id": str(subject), "request_id": request_id},
            queue="compliance.erasure",
        )


def attempts(port: int) -> float | None:
    return value(scrape(port), "compliance_job_attempts_total", **DONE)


def files_of(system: System) -> set[int]:
    """The processes that hold numbers."""
    return {int(path.stem.split("_")[1]) for path in system.home.glob(f"{FOLDER}*/counter_*.db")} - {0}


def folders(system: System) -> set[Path]:
    """Where workers keep their numbers."""
    return set(system.home.glob(f"*{FOLDER}*"))


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_counts_add_up_over_the_pool_and_survive_the_death_of_a_process(system: System) -> None:
    port, child = start(system, "worker")
    system.wait_for(lambda: attempts(port) == 0, "a counter that nothing happened to is there, at zero")
    ask(system, *(f"ticket-{number}" for number in range(8)))
    system.wait_for(lambda: attempts(port) == 8, "eight erasures are counted")
    before, counted_by = scrape(port), files_of(system) - {child.process.pid}
    victim = min(counted_by)
    os.kill(victim, signal.SIGKILL)
    system.wait_for(lambda: is_gone(victim), "the pool process is dead")
    after, files = scrape(port), files_of(system)
    system.service().send_task(
        "compliance.erasure.request",
        kwargs={"subject_id": str(system.seeded.subjects[8]), "request_id": "ticket-8"},
        queue="compliance.erasure",
    )
    system.wait_for(lambda: attempts(port) == 9, "its successor counts on")
    system.service().send_task("compliance.erasure.request", kwargs={"wrong": "x"}, queue="compliance.erasure")
    refused = ("compliance_messages_refused_total", frozenset({("kind", "erasure.request")}))
    system.wait_for(lambda: scrape(port).get(refused) == 1, "a refused message is counted")
    child.process.terminate()
    child.process.wait(30)

    assert len(counted_by) == 2
    assert value(before, "compliance_job_attempt_duration_seconds_count", kind="erasure.request") == 8
    assert value(before, "compliance_job_wait_seconds_count", kind="erasure.request") == 8
    assert rising(after) == rising(before)
    assert victim not in files
    assert not folders(system)


@pytest.mark.storm
def test_the_numbers_of_a_worker_that_was_killed_go_when_the_next_one_starts(system: System) -> None:
    port, child = start(system, "worker")
    system.wait_for(lambda: attempts(port) == 0, "it serves")
    pool, left = children_of(child.process.pid), folders(system)
    child.process.kill()
    child.process.wait(30)
    system.wait_for(lambda: all(map(is_gone, pool)), "its pool is gone")
    kept = folders(system)
    port, _ = start(system, "worker")
    system.wait_for(lambda: attempts(port) == 0, "the next one serves")

    assert kept == left
    assert len(left) == len(folders(system)) == 1
    assert not left & folders(system)


def rising(samples: Samples) -> Samples:
    return {key: value for key, value in samples.items() if "erasure.request" in dict(key[1]).values()}


def test_the_watcher_shows_what_waits_and_what_is_late(system: System) -> None:
    port, child = start(system, "watcher")
    system.wait_for(lambda: value(scrape(port), "compliance_ledger_readable") == 1, "it serves")
    system.wait_for(
        lambda: system.deployment.admin.compliance["watch_tokens"].find_one({"_id": system.deployment.name}),
        "the watcher follows",
    )
    system.compliance("erasure", "request", str(system.seeded.subjects[0]), "--request-id", "ticket-1")
    system.deployment.admin.app["users"].delete_one({"_id": system.seeded.subjects[1]})
    routed = {"stream": "app", "kind": "health.check"}
    baseline = value(scrape(port), "compliance_watch_jobs_total", **routed) or 0
    system.wait_for(
        lambda: (value(scrape(port), "compliance_watch_jobs_total", **routed) or 0) > min(baseline, 1),
        "the change is routed",
    )
    waiting = {"kind": "erasure.request", "state": "queued"}
    system.wait_for(lambda: value(scrape(port), "compliance_jobs", **waiting) == 1, "the job is seen")
    samples = scrape(port)
    child.process.terminate()
    code = child.process.wait(30)

    assert (value(samples, "compliance_oldest_due_job_age_seconds", kind="erasure.request") or 0) > 0
    assert value(samples, "compliance_watch_events_total", stream="app") == 1
    assert 0 <= (value(samples, "compliance_watch_token_age_seconds", stream="app") or -1) < 60
    assert value(samples, "compliance_erasure_requests_overdue") == 0
    assert value(samples, "compliance_jobs_past_deadline", kind="erasure.request") == 0
    assert code == 0


def test_a_port_that_is_taken_is_said_and_ends_the_process(system: System) -> None:
    port, _ = start(system, "watcher")
    system.wait_for(lambda: scrape(port), "the watcher serves")
    taken = {"COMPLIANCE_METRICS_PORT": str(port), "TMPDIR": str(system.home)}
    other = system.command("celery", "-A", "worker", "worker", **taken)
    second = system.command("compliance", "watcher", **taken)

    assert (other.returncode, second.returncode) == (78, 78)
    assert "each process needs a port of its own" in other.stderr
    assert "each process needs a port of its own" in second.stderr
    assert not folders(system)


def test_without_a_port_nothing_listens_and_nothing_is_written(system: System) -> None:
    system.start("worker", TMPDIR=str(system.home))
    ask(system, "ticket-1")
    system.wait_for(lambda: system.job("ticket-1").get("state") == "done", "the erasure is done")

    assert not folders(system)
