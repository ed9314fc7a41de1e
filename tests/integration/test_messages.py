"""What becomes of messages that other services send, the wrong ones too."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from sealed import SealedLog
from structlog.testing import capture_logs
from waiting import wait_until

from compliance.errors import InvalidPayload
from compliance.jobs.job import Prefix, RequestId
from compliance.roles import Role
from worker.attempt import MAX_TAKEOVERS
from worker.intake import Message, receive, submit
from worker.outbox import Outbox
from worker.tasks import JOBS

SECRET = "ann.lee@example.org"
LEASE_IS_OVER: dict[str, Any] = {"$expr": {"$lt": ["$lease.until", "$$NOW"]}}


def message(kind: str, values: dict[str, Any], request_id: str = "r-1") -> Message:
    return Message(kind=JOBS[kind], values=values, request_id=request_id)


def refused(deployment: Deployment, kind: str, values: dict[str, Any], request_id: str = "r-1") -> str:
    receive(message(kind, values, request_id), services=deployment.services())
    (job,) = deployment.admin.compliance["jobs"].find({"state": "rejected"})
    (entry,) = deployment.entries(action={"$in": ["job.rejected", "message.refused"]})

    assert entry["outcome"] == "denied"
    assert SECRET not in f"{job}{entry}"
    reason: str = job["error"]["message"]
    return reason


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "subject_id: Field required"),
        ({"subject_id": 7}, "subject_id: Input should be a valid string"),
        ({"subject_id": str(ObjectId()), "email": SECRET}, "email: Extra inputs are not permitted"),
        ({"subject_id": str(ObjectId()), SECRET: 1}, "(a field whose name is not shown)"),
        ({"subject_id": str(ObjectId()), "dry_run": SECRET}, "dry_run: Input should be a valid boolean"),
        ({"subject_id": SECRET}, "subject_id: expected an ObjectId of 24 hexadecimal digits"),
        ({"subject_id": "65f2c0ffee"}, "subject_id: expected an ObjectId of 24 hexadecimal digits"),
        ({"subject_id": str(ObjectId())}, "no document of users has this user_id"),
    ],
)
def test_a_wrong_message_is_refused_with_a_reason_and_without_its_values(
    deployment: Deployment, values: dict[str, Any], says: str
) -> None:
    assert says in refused(deployment, "erasure.request", values)


@pytest.mark.parametrize("request_id", [SECRET, "", "x" * 129, "tab\there", "ümlaut"])
def test_a_request_id_that_cannot_be_shown_is_refused(deployment: Deployment, request_id: str) -> None:
    assert "request_id" in refused(deployment, "erasure.request", {"subject_id": str(ObjectId())}, request_id)


@pytest.mark.parametrize("prefix", Prefix)
def test_a_request_id_of_ours_is_refused_from_any_sender_and_stays_free(deployment: Deployment, prefix: str) -> None:
    request_id, services = f"{prefix}1", deployment.services()
    receive(message("audit.verify", {}, request_id), services=services)
    with pytest.raises(InvalidPayload, match="must not begin with schedule:"):
        submit(JOBS["audit.verify"], {}, request_id=request_id, origin="cli", services=services)

    (note,) = deployment.admin.compliance["jobs"].find()
    assert "must not begin with schedule:" in note["error"]["message"]
    assert deployment.entries(action="audit.verified") == []
    if prefix is not Prefix.REFUSED:  # a note may stand under the id of another one
        assert note["_id"].startswith("refused-")


def test_a_doorbell_for_a_recorded_job_of_ours_is_heard(deployment: Deployment) -> None:
    services = deployment.services()
    submit(JOBS["audit.verify"], {}, request_id="watch-1", origin="watcher", services=services)
    receive(message("health.check", {}, "watch-1"), services=services)
    before = services.ledger.find("watch-1")
    receive(message("audit.verify", {}, "watch-1"), services=services)
    job = services.ledger.find("watch-1")

    assert [found and found.state for found in (before, job)] == ["queued", "done"]


def test_the_note_about_a_wrong_request_id_stands_under_the_id_of_the_message(deployment: Deployment) -> None:
    for request_id in ("", "schedule:x:1"):
        wrong = replace(message("audit.verify", {}, request_id), message_id=f"m-{len(request_id)}")
        receive(wrong, services=deployment.services())

    assert {note["_id"] for note in deployment.admin.compliance["jobs"].find({"refused": True})} == {"m-0", "m-12"}


def test_the_log_names_the_note_of_a_refused_message(deployment: Deployment) -> None:
    wrong = [message("audit.verify", {"all": True}), replace(message("audit.verify", {}, SECRET), message_id="m-1")]
    deployment.admin.compliance["outbox"].insert_one({"task": "compliance.nothing", "request_id": "r-2"})
    with capture_logs() as logs:
        for item in wrong:
            receive(item, services=deployment.services())
        Outbox(deployment.services(Role.SEALER)).drain()

    assert [line["request_id"] for line in logs if line["event"] == "message.refused"] == ["r-1", "m-1", "r-2"]


def test_a_refused_message_never_touches_the_job_of_the_same_id(deployment: Deployment) -> None:
    first = deployment.run("audit.verify", {})
    receive(message("erasure.request", {"subject_id": str(ObjectId())}), services=deployment.services())

    job = deployment.services().ledger.find("r-1")
    assert job == first
    assert [entry["details"]["code"] for entry in deployment.entries(action="message.refused")] == ["RequestConflict"]


def test_the_same_wrong_message_again_is_the_same_refusal(deployment: Deployment) -> None:
    for _ in range(3):
        refused(deployment, "erasure.request", {"subject_id": SECRET})

    assert len(deployment.entries(action="message.refused")) == 1


def test_a_corrected_message_may_use_the_same_request_id(deployment: Deployment) -> None:
    refused(deployment, "audit.verify", {"all": True})

    assert deployment.run("audit.verify", {}).state == "done"


def test_a_job_whose_workers_vanish_is_parked(deployment: Deployment) -> None:
    services = deployment.services()
    submit(JOBS["audit.verify"], {}, request_id="r-1", origin="test", services=services)
    jobs = deployment.admin.compliance["jobs"]
    for _ in range(MAX_TAKEOVERS):
        assert services.ledger.claim(RequestId("r-1"), owner="killed", lease=timedelta()) is not None
        wait_until(lambda: jobs.count_documents(LEASE_IS_OVER) == 1, timeout=5, what="the lease ends")
    job = deployment.run("audit.verify", {})

    assert (job.state, (job.error or {})["code"]) == ("parked", "JobKillsWorkers")


def test_an_unknown_check_is_refused_with_the_known_ones(deployment: Deployment) -> None:
    assert "no_residual" in refused(deployment, "health.check", {"checks": ["nonsense"]})


def test_a_campaign_becomes_one_request_per_person(deployment: Deployment) -> None:
    people = [str(ObjectId()) for _ in range(3)]
    job = deployment.run("erasure.campaign", {"subject_ids": [*people, people[0]]})

    recorded = {item.payload["subject_id"] for item in deployment.published}
    assert (job.result, recorded) == ({"requests": 3}, set(people))
    assert deployment.admin.compliance["jobs"].count_documents({"kind": "erasure.request"}) == 3


def test_a_campaign_with_one_wrong_id_starts_nothing(deployment: Deployment) -> None:
    job = deployment.run("erasure.campaign", {"subject_ids": [str(ObjectId()), "nonsense"]})

    assert job.state == "rejected"
    assert deployment.admin.compliance["jobs"].count_documents({"kind": "erasure.request"}) == 0


def test_verification_of_an_untouched_log_finds_nothing(deployment: Deployment, tmp_path: Path) -> None:
    SealedLog(deployment, tmp_path / "guard").seal_all()

    job = deployment.run("audit.verify", {})

    assert job.result is not None
    assert job.result["findings"] == []
    assert job.result["entries"] > 10
