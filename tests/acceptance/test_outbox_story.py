"""A service asks through MongoDB alone, while the watcher and Redis die."""

import signal

from system import System

from compliance.mongo import Session, open_client
from worker.client import Client

REQUESTS, KILLS = 60, 3


def numbers(system: System) -> dict[str, str]:
    """The state of each job that came by the outbox."""
    found = system.deployment.admin.compliance["jobs"].find({"origin": "outbox"})
    return {job["_id"]: job["state"] for job in found}


def test_each_request_is_carried_out_once_whatever_dies(system: System) -> None:
    system.start("worker", "beat")
    with Client(system.deployment.sender_uri, database=system.deployment.name) as client:
        for part in range(KILLS):
            (watcher,) = system.start("watcher").children
            for number in range(REQUESTS // KILLS):
                person = system.seeded.subjects[number % len(system.seeded.subjects)]
                event = {
                    "event_id": f"e-{part}-{number}",
                    "subject_id": person,
                    "type": "MARKETING",
                    "granted": True,
                    "occurred_at": "2026-05-01T12:00:00Z",
                }
                client.submit("compliance.consent.update", event, request_id=f"r-{part}-{number}")
            if part:  # the first one may die before it has begun
                system.wait_for(lambda: numbers(system), "the watcher has begun")
            watcher.process.send_signal(signal.SIGKILL)
            watcher.process.wait(30)
        system.start("watcher")
        system.wait_for(lambda: list(numbers(system).values()) == ["done"] * REQUESTS, "all are done")

    events = system.deployment.admin.compliance["consent_events"]
    assert system.deployment.admin.compliance["outbox"].count_documents({}) == 0
    assert events.count_documents({"_id": {"$regex": "^e-"}}) == REQUESTS
    assert len(system.deployment.entries(action="consent.granted", request_id={"$regex": "^r-"})) == REQUESTS


def test_a_sender_needs_no_redis_and_an_aborted_transaction_asks_for_nothing(system: System) -> None:
    valkey = system.deployment.stack.valkey
    valkey.stop()
    with (
        open_client(system.deployment.sender_uri, app_name="test") as mongo,
        Client(system.deployment.sender_uri, database=system.deployment.name) as client,
    ):

        def ask(session: Session) -> None:
            client.submit("compliance.audit.verify", {}, request_id="aborted", session=session)
            session.abort_transaction()

        with mongo.start_session() as session, session.start_transaction():
            ask(session)
        client.submit("compliance.audit.verify", {}, request_id="kept")
        system.start("watcher")
        system.wait_for(lambda: system.job("kept").get("state") == "queued", "the job is recorded")
    valkey.start()
    valkey.wait_ready()
    system.start("worker", "beat")

    system.wait_for(lambda: system.job("kept").get("state") == "done", "the sweeper rings")
    assert system.job("aborted") == {}
