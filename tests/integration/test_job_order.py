"""Which job goes first, which ones wait for each other, and what a person may ask of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from waiting import wait_until

from compliance.clock import SystemClock
from compliance.errors import LeaseLost, UnknownName
from compliance.jobs.desk import Desk
from compliance.jobs.job import Ask, RequestId
from compliance.jobs.run import Interrupted, Outcome, Run, Stopped, heartbeat
from worker import desk
from worker.attempt import CANDIDATES, carry_out_most_urgent
from worker.intake import Message, receive, submit
from worker.tasks import JOBS

LONG = timedelta(minutes=1)
PERSON = "65f000000000000000000001"
ERASE, VERIFY = "erasure.request", "audit.verify"


CONSENT = {
    "event_id": "e-1",
    "subject_id": PERSON,
    "type": "MARKETING",
    "granted": True,
    "occurred_at": "2026-03-31T12:00:00Z",
}


def add_person(deployment: Deployment) -> None:
    deployment.admin.app["users"].insert_one(
        {
            "_id": ObjectId(PERSON),
            "email": "p@example.org",
            "role": "listener",
            "status": "ACTIVE",
            "subscription_type": "FREE",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )


def record(deployment: Deployment, request_id: str, kind: str = VERIFY, **values: Any) -> RequestId:
    submit(JOBS[kind], values, request_id=request_id, origin="test", services=deployment.services())
    return RequestId(request_id)


def ring(deployment: Deployment, request_id: str) -> None:
    services = deployment.services()
    job = services.ledger.find(request_id)
    assert job is not None
    carry_out_most_urgent(JOBS[job.kind], job, services=services, on_progress=lambda _: None)


def states(deployment: Deployment) -> dict[str, str]:
    return {job["_id"]: job["state"] for job in deployment.admin.compliance["jobs"].find()}


class Hasty:
    """A clock on which a second goes by whenever it is looked at."""

    def __init__(self) -> None:
        self._began, self._seconds = SystemClock().now(), 0

    def now(self) -> datetime:
        self._seconds += 1
        return self._began + timedelta(seconds=self._seconds)

    def sleep(self, duration: timedelta) -> None:
        raise AssertionError(f"nothing waits {duration} here")


@contextmanager
def running(deployment: Deployment, request_id: str) -> Iterator[Run]:
    services = deployment.services()
    claim = services.ledger.claim(RequestId(request_id), owner="other", lease=LONG)
    assert claim is not None
    yield Run(claim=claim, ledger=services.ledger, log=services.log, clock=services.clock)
    services.ledger.hand_back(claim, delay=timedelta())


def test_a_message_brings_the_most_urgent_job_first(deployment: Deployment) -> None:
    soon = datetime(2030, 1, 1, tzinfo=UTC)
    record(deployment, "plain")
    record(deployment, "late", priority=7, deadline="2031-01-01T00:00:00Z")
    record(deployment, "soon", priority=7, deadline=soon.isoformat())
    record(deployment, "last", priority=0)
    order = []
    for _ in range(4):
        before = set(states(deployment).items())
        ring(deployment, "plain")
        order += [name for name, _ in set(states(deployment).items()) - before]

    assert order == ["soon", "late", "plain", "last"]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"priority": 10}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"deadline": "2031-01-01"}, "deadline"),
        ({"deadline": "2031-01-01T00:00:00"}, "deadline"),
    ],
)
def test_urgency_that_makes_no_sense_is_refused(deployment: Deployment, values: dict[str, Any], fault: str) -> None:
    receive(Message(kind=JOBS[VERIFY], values=values, request_id="r-1"), services=deployment.services())
    (job,) = deployment.admin.compliance["jobs"].find()

    assert job["state"] == "rejected"
    assert f"{fault}: " in job["error"]["message"]


def test_an_erasure_is_due_within_a_calendar_month_and_other_work_within_a_day(deployment: Deployment) -> None:
    record(deployment, "erasure", ERASE, subject_id=PERSON)
    record(deployment, "other")
    jobs = {job["_id"]: job for job in deployment.admin.compliance["jobs"].find()}

    assert jobs["erasure"]["deadline"] - jobs["erasure"]["created_at"] >= timedelta(days=28)
    assert jobs["other"]["deadline"] - jobs["other"]["created_at"] == timedelta(days=1)


def test_the_trace_of_the_sender_is_kept_and_made_where_there_is_none(deployment: Deployment) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for number, header in enumerate((f"00-{trace}-00f067aa0ba902b7-01", "nonsense", None)):
        message = Message(kind=JOBS[VERIFY], values={}, request_id=f"r-{number}", traceparent=header)
        receive(message, services=deployment.services())
    traces = [job["trace_id"] for job in deployment.admin.compliance["jobs"].find().sort("_id")]

    assert traces[0] == trace
    assert len(set(traces)) == 3
    assert all(len(found) == 32 for found in traces)


def test_two_jobs_about_one_person_never_run_at_once(deployment: Deployment) -> None:
    record(deployment, "first", ERASE, subject_id=PERSON)
    record(deployment, "second", "export.run", subject_id=PERSON.upper())
    ledger = deployment.services().ledger
    with running(deployment, "first"):
        assert ledger.claim(RequestId("second"), owner="me", lease=LONG) is None

    assert ledger.claim(RequestId("second"), owner="me", lease=LONG) is not None
    assert ledger.claim(RequestId("first"), owner="me", lease=LONG) is None


def test_jobs_about_different_people_and_dry_runs_run_side_by_side(deployment: Deployment) -> None:
    record(deployment, "first", ERASE, subject_id=PERSON)
    record(deployment, "other", ERASE, subject_id=str(ObjectId()))
    record(deployment, "plan", ERASE, subject_id=PERSON, dry_run=True)
    ledger = deployment.services().ledger
    with running(deployment, "first"):
        for request_id in ("other", "plan"):
            assert ledger.claim(RequestId(request_id), owner="me", lease=LONG) is not None


def test_a_job_that_waits_for_a_person_is_rung_for_when_the_other_one_ends(deployment: Deployment) -> None:
    add_person(deployment)
    record(deployment, "first", ERASE, subject_id=PERSON)
    services = deployment.services()
    with running(deployment, "first"):
        receive(Message(kind=JOBS["consent.update"], values=CONSENT, request_id="consent"), services=services)

        assert states(deployment)["consent"] == "queued"
        assert deployment.admin.compliance["consent_events"].count_documents({}) == 0
    ring(deployment, "first")

    assert [job.request_id for job in deployment.published] == ["consent"]
    assert services.ledger.most_urgent("consent.update", limit=5) == ["consent"]


def test_a_job_behind_many_whose_person_is_taken_is_found(deployment: Deployment) -> None:
    for number in range(3):
        record(deployment, f"same-{number}", ERASE, subject_id=PERSON, priority=9)
    record(deployment, "plan", ERASE, subject_id=str(ObjectId()))
    with running(deployment, "same-0"):
        ring(deployment, "plan")

        assert states(deployment)["plan"] == "rejected"  # there is no such person


def test_a_message_whose_own_job_was_taken_by_an_earlier_one_brings_the_job_that_was_passed_over(
    deployment: Deployment,
) -> None:
    """The message of the first brought the urgent one; that of the urgent one must bring the first."""
    ledger = deployment.services().ledger
    first, urgent = record(deployment, "first"), record(deployment, "urgent", priority=9)
    ledger.claim(urgent, owner="other", lease=LONG)
    ring(deployment, "urgent")

    found = ledger.find(first)
    assert found is not None
    assert found.state == "done"


def test_a_job_behind_a_crowd_that_waits_for_one_lock_is_found(deployment: Deployment) -> None:
    for number in range(CANDIDATES + 5):
        record(deployment, f"same-{number:02}", "export.run", collection="tracks", package=f"p-{number}", priority=9)
    record(deployment, "other", "export.run", collection="users", package="other")
    with running(deployment, "same-00"):
        ring(deployment, "other")

        assert states(deployment)["other"] == "done"


def test_a_job_that_has_not_run_can_be_parked_and_queued_again_and_again(deployment: Deployment) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    for _ in range(3):
        job = services.ledger.find("r-1")
        assert job is not None
        desk.ask(job, Ask.PARK, services, actor="test")
        desk.retry(job, services, actor="test")

    assert states(deployment) == {"r-1": "queued"}
    assert len(deployment.entries(action="job.retried")) == 3


def test_a_small_job_is_one_transaction_and_its_repeat_is_the_same_job(deployment: Deployment) -> None:
    add_person(deployment)
    for _ in range(3):
        message = Message(kind=JOBS["consent.update"], values=CONSENT, request_id="consent")
        receive(message, services=deployment.services())
    (job,) = deployment.admin.compliance["jobs"].find()

    assert (job["state"], job["attempts"], job["fence"]) == ("done", 1, 1)
    assert len(deployment.entries(action="consent.granted")) == 1


def test_a_small_job_that_is_refused_is_recorded_as_any_other(deployment: Deployment) -> None:
    message = Message(kind=JOBS["consent.update"], values=CONSENT, request_id="c")
    receive(message, services=deployment.services())
    (job,) = deployment.admin.compliance["jobs"].find()

    assert (job["state"], job["error"]["code"]) == ("rejected", "UnknownSubject")


@pytest.mark.parametrize(("what", "state"), [(Ask.CANCEL, "cancelled"), (Ask.PARK, "parked")])
def test_a_waiting_job_ends_at_once(deployment: Deployment, what: Ask, state: str) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    job = services.ledger.find("r-1")
    assert job is not None

    assert desk.ask(job, what, services, actor="test") is True
    assert states(deployment) == {"r-1": state}
    assert [entry["performed_by"] for entry in deployment.entries(action=f"job.{state}")] == ["test"]


@pytest.mark.parametrize(("what", "state"), [(Ask.CANCEL, "cancelled"), (Ask.PARK, "parked")])
def test_a_running_job_ends_at_its_next_batch_and_commits_nothing_more(
    deployment: Deployment, what: Ask, state: str
) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    job = services.ledger.find("r-1")
    assert job is not None
    with running(deployment, "r-1") as run:
        run.commit(lambda _: Outcome(checkpoint={"step": 1}))

        assert desk.ask(job, what, services, actor="test") is False
        with pytest.raises(Interrupted):
            run.commit(lambda _: Outcome(checkpoint={"step": 2}))
    ring(deployment, "r-1")
    found = services.ledger.find("r-1")

    assert found is not None
    assert (found.state, found.checkpoint, found.asked) == (state, {"step": 1}, None)
    assert len(deployment.entries(action=f"job.{what.value}_requested")) == 1
    assert [entry["outcome"] for entry in deployment.entries(action=f"job.{state}")] == ["success"]


def test_long_work_between_two_batches_hears_it_from_the_heartbeat(deployment: Deployment) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    job = services.ledger.find("r-1")
    assert job is not None
    with running(deployment, "r-1") as run, heartbeat(run, lease=timedelta(milliseconds=300)):
        run.check()
        desk.ask(job, Ask.CANCEL, services, actor="test")
        wait_until(lambda: run.interruption is not None, timeout=10, what="the heartbeat hears it")
        with pytest.raises(Interrupted):
            run.check()


def test_a_worker_that_was_taken_over_hears_it_from_the_heartbeat(deployment: Deployment) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    claim = services.ledger.claim(RequestId("r-1"), owner="zombie", lease=timedelta())
    assert claim is not None
    run = Run(claim=claim, ledger=services.ledger, log=services.log, clock=services.clock)
    wait_until(
        lambda: services.ledger.claim(RequestId("r-1"), owner="next", lease=LONG) is not None,
        timeout=5,
        what="the lease ends",
    )

    assert run.beat(LONG) is False
    with pytest.raises(LeaseLost):
        run.check()


def test_a_parked_job_goes_on_from_its_checkpoint_when_it_is_tried_again(deployment: Deployment) -> None:
    record(deployment, "r-1")
    services = deployment.services()
    job = services.ledger.find("r-1")
    assert job is not None
    with running(deployment, "r-1") as run:
        run.commit(lambda _: Outcome(checkpoint={"step": 1}))
    desk.ask(job, Ask.PARK, services, actor="test")
    desk.retry(job, services, actor="test")
    found = services.ledger.find("r-1")

    assert found is not None
    assert (found.state, found.checkpoint) == ("queued", {"step": 1})


def test_what_is_finished_cannot_be_cancelled(deployment: Deployment) -> None:
    done = deployment.run(VERIFY, {})
    for what in Ask:
        with pytest.raises(UnknownName, match="no unfinished job"):
            desk.ask(done, what, deployment.services(), actor="test")

    assert states(deployment) == {"r-1": "done"}
    assert deployment.entries(action="job.cancelled") == []


def test_a_cancelled_erasure_withdraws_its_request(deployment: Deployment) -> None:
    add_person(deployment)
    services = deployment.services()
    deployment.carry_out(ERASE, {"subject_id": PERSON}, should_stop=_after_calls(3))
    job = services.ledger.find("r-1")
    assert job is not None
    desk.ask(job, Ask.CANCEL, services, actor="dpo")
    request = deployment.admin.compliance["erasure_requests"].find_one({"_id": "r-1"})

    assert request is not None
    assert request["state"] == "withdrawn"
    assert [str(entry["entity_id"]) for entry in deployment.entries(action="erasure.withdrawn")] == [PERSON]
    assert deployment.admin.app["users"].count_documents({"_id": ObjectId(PERSON)}) == 1


def test_an_erasure_that_outlasts_an_attempt_hands_over_and_goes_on(deployment: Deployment) -> None:
    add_person(deployment)
    event = {"user_id": ObjectId(PERSON), "event_type": "play", "timestamp": datetime(2026, 1, 1, tzinfo=UTC)}
    deployment.admin.app["analytics"].insert_many({**event, "payload": {"number": n}} for n in range(60))
    brief = deployment.with_settings(batch_docs=5, job_limit=timedelta(seconds=50))
    left = []
    for _ in range(20):
        job = brief.carry_out(ERASE, {"subject_id": PERSON}, clock=Hasty())
        left.append(deployment.admin.app["analytics"].count_documents({}))
        if job.state == "done":
            break

    assert job.state == "done"
    assert 1 < job.attempts < 20
    assert job.takeovers == 0
    assert left == sorted(left, reverse=True)
    assert 0 < left[0] < 60
    batches = deployment.entries(action="erasure.batch", **{"details.collection": "analytics"})
    assert sum(entry["details"]["documents"] for entry in batches) == 60
    assert job.result is not None
    assert job.result["affected"]["analytics"] == {"delete": 60}


def test_an_attempt_that_committed_nothing_does_not_hand_over(deployment: Deployment) -> None:
    record(deployment, "r-1")
    with running(deployment, "r-1") as run:
        run.is_late = lambda: True
        run.check()
        run.commit(lambda _: Outcome(checkpoint={"step": 1}))
        with pytest.raises(Stopped):
            run.check()
        with pytest.raises(Stopped):
            run.commit(lambda _: Outcome(checkpoint={"step": 2}))
    found = deployment.services().ledger.find("r-1")

    assert found is not None
    assert found.checkpoint == {"step": 1}


def test_jobs_are_counted_by_kind_and_state(deployment: Deployment) -> None:
    deployment.run(VERIFY, {}, "done")
    record(deployment, "waiting")
    record(deployment, "erasure", ERASE, subject_id=PERSON)
    counted = Desk(deployment.services().ledger).stats(within=timedelta(hours=1))

    assert [(count.kind, count.state, count.jobs) for count in counted] == [
        (VERIFY, "done", 1),
        (VERIFY, "queued", 1),
        (ERASE, "queued", 1),
    ]


def _after_calls(number: int) -> Any:
    calls = iter(range(1000))
    return lambda: next(calls) >= number
