"""The main job end to end: a service asks, a worker erases, the change stream checks, and the death of a worker."""

import os
import signal
from typing import Any

import bson
import oracle
import redis
from system import System, children_of

from compliance.roles import Role


def whole_database(system: System) -> dict[str, dict[Any, bytes]]:
    database = system.deployment.admin.app
    found = {name: list(database[name].find()) for name in database.list_collection_names()}
    return {name: {item["_id"]: bson.encode(item) for item in stored} for name, stored in found.items() if stored}


def expected(system: System, subject: Any) -> dict[str, dict[Any, bytes]]:
    data_map = system.deployment.services().data_map
    after = oracle.expected_after_erasure(system.seeded.documents, subject, data_map)
    return {name: {item["_id"]: bson.encode(item) for item in stored} for name, stored in after.items() if stored}


def ask(system: System, subject: Any, request_id: str = "ticket-4711") -> None:
    system.service().send_task(
        "compliance.erasure.request",
        kwargs={"subject_id": str(subject), "request_id": request_id},
        queue="compliance.erasure",
    )


def is_done(system: System, request_id: str = "ticket-4711") -> bool:
    return system.job(request_id).get("state") == "done"


def follow_up(system: System, subject: Any) -> dict[str, Any]:
    query = {"check": "no_residual", "cause": "change", "subject_id": subject}
    return system.deployment.admin.compliance["health_checks"].find_one(query) or {}


def test_a_service_asks_and_everything_follows(system: System) -> None:
    subject = system.seeded.subjects[0]
    system.start("worker", "beat", "watcher", "flower")
    system.wait_for(
        lambda: system.deployment.admin.compliance["watch_tokens"].find_one({"_id": system.deployment.name}),
        "the watcher follows",
    )
    system.wait_for(
        lambda: "compliance.jobs.sweep" in {task["name"] for task in system.flower_tasks()}, "Flower serves"
    )
    ask(system, subject)
    system.wait_for(lambda: is_done(system), "the erasure is done")
    system.wait_for(lambda: follow_up(system, subject), "the change stream asks for a check")
    system.wait_for(
        lambda: [
            task
            for task in system.flower_tasks()
            if task["name"] == "compliance.erasure.request" and task["state"] == "SUCCESS"
        ],
        "Flower shows the work",
    )

    assert whole_database(system) == expected(system, subject)
    assert follow_up(system, subject)["status"] == "ok"
    assert system.request("ticket-4711")["state"] == "completed_with_retention"
    (shown,) = [task for task in system.flower_tasks() if task["name"] == "compliance.erasure.request"]
    assert (shown["args"], shown["kwargs"]) == ("<hidden>", "<hidden>")
    assert "erasure.completed" in system.compliance("audit", "show", "--entity", f"user:{subject}")
    assert "0 findings" in system.compliance("audit", "verify")
    assert "completed_with_retention" in system.compliance("erasure", "show", "ticket-4711")


def test_a_worker_that_is_killed_in_the_middle_is_replaced(system: System) -> None:
    subject = system.seeded.subjects[0]
    slow = {"COMPLIANCE_BATCH_DOCS": "1"}
    (child,) = system.start("worker", **slow).children
    ask(system, subject)
    system.wait_for(
        lambda: (system.job("ticket-4711").get("checkpoint") or {}).get("sequence", 0) > 8, "it is half done"
    )
    os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
    half = system.job("ticket-4711")
    system.start("beat")
    system.start("worker")
    system.wait_for(lambda: is_done(system), "the successor finishes")
    recorded = system.deployment.entries(action="erasure.batch")
    done = system.request("ticket-4711")

    assert half["state"] == "running"
    assert whole_database(system) == expected(system, subject)
    assert sum(entry["details"]["documents"] for entry in recorded) == sum(step["documents"] for step in done["plan"])
    assert len(system.deployment.entries(action="erasure.completed")) == 1


def test_a_worker_that_is_told_to_stop_hands_its_job_to_the_next(system: System) -> None:
    subject = system.seeded.subjects[0]
    (child,) = system.start("worker", COMPLIANCE_BATCH_DOCS="1", COMPLIANCE_LEASE_SECONDS="600").children
    ask(system, subject)
    system.wait_for(lambda: (system.job("ticket-4711").get("checkpoint") or {}).get("sequence", 0) > 5, "it works")
    child.process.terminate()
    code = child.process.wait(timeout=30)
    handed_back = system.job("ticket-4711")
    system.start("worker")
    system.wait_for(lambda: is_done(system), "the successor finishes")

    assert code == 0
    assert (handed_back["state"], handed_back["lease"]) == ("queued", None)
    assert whole_database(system) == expected(system, subject)


def test_a_message_that_the_broker_lost_is_made_good_by_the_sweeper(system: System) -> None:
    subject = system.seeded.subjects[0]
    system.compliance("erasure", "request", str(subject), "--request-id", "ticket-4711")
    with redis.Redis.from_url(system.environ["REDIS_URL"]) as broker:
        broker.flushall()
    system.start("worker", "beat")
    system.wait_for(lambda: is_done(system), "the sweeper rings again")

    assert whole_database(system) == expected(system, subject)


def test_a_message_whose_worker_is_killed_before_it_is_recorded_comes_again(system: System) -> None:
    subject = system.seeded.subjects[0]
    (child,) = system.start("worker").children
    system.wait_for(lambda: "ready" in child.log.read_text(), "the worker is ready")
    held = {
        "failCommands": ["findAndModify"],
        "blockConnection": True,
        "blockTimeMS": 60_000,
        "appName": Role.WORKER.value,
    }
    configure = system.deployment.admin.client.admin.command
    configure("configureFailPoint", "failCommand", mode="alwaysOn", data=held)
    ask(system, subject)
    system.wait_for(lambda: "compliance.erasure.request" in child.log.read_text(), "the message is taken")
    for pool_process in children_of(child.process.pid):
        os.kill(pool_process, signal.SIGKILL)
    recorded = system.job("ticket-4711")
    configure("configureFailPoint", "failCommand", mode="off")
    system.wait_for(lambda: is_done(system), "the message came again")

    assert recorded == {}
    assert whole_database(system) == expected(system, subject)


def test_a_job_goes_on_while_the_broker_is_away(system: System) -> None:
    subject = system.seeded.subjects[0]
    system.start("worker", COMPLIANCE_BATCH_DOCS="1")
    ask(system, subject)
    system.wait_for(lambda: (system.job("ticket-4711").get("checkpoint") or {}).get("sequence", 0) > 5, "it works")
    system.deployment.stack.valkey.kill()
    system.wait_for(lambda: is_done(system), "it is done")
    system.deployment.stack.valkey.start()

    assert system.job("ticket-4711")["attempts"] == 1
    assert whole_database(system) == expected(system, subject)


def test_a_worker_goes_on_when_the_broker_was_away(system: System) -> None:
    first, second = system.seeded.subjects[:2]
    system.start("worker", "beat")
    ask(system, first)
    system.wait_for(lambda: is_done(system), "the erasure is done")
    system.deployment.stack.valkey.kill()
    system.deployment.stack.valkey.start()
    system.compliance("erasure", "request", str(second), "--request-id", "ticket-4712")
    system.wait_for(lambda: is_done(system, "ticket-4712"), "the worker is back", timeout=90)

    assert system.request("ticket-4712")["state"] == "completed_with_retention"
