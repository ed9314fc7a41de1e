"""The ledger of jobs: one job per request, one worker per job, and nothing from a worker that was taken over."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from signing import smuggled
from waiting import wait_until

from compliance.audit.entry import Entry
from compliance.errors import LeaseLost, RequestConflict, StoreUnavailable
from compliance.jobs import ledger
from compliance.jobs.document import new_document
from compliance.jobs.job import Ask, RequestId, State
from compliance.jobs.ledger import Ledger
from compliance.jobs.run import Outcome, Run, Stopped, heartbeat
from compliance.mongo import Session
from worker import desk
from worker.due import take_turn
from worker.intake import submit
from worker.resume import sweep
from worker.tasks import JOBS

ID = RequestId("r-1")
A_MINUTE_EARLIER: dict[str, Any] = {"$subtract": ["$ring_at", 60_100]}
LONG, SHORT = timedelta(minutes=1), timedelta(milliseconds=200)


def record(deployment: Deployment, request_id: str = "r-1") -> Ledger:
    submit(JOBS["audit.verify"], {}, request_id=request_id, origin="test", services=deployment.services())
    return deployment.services().ledger


def run_of(deployment: Deployment, owner: str, lease: timedelta) -> Run:
    services = deployment.services()
    claim = services.ledger.claim(ID, owner=owner, lease=lease)
    assert claim is not None
    return Run(claim=claim, ledger=services.ledger, log=services.log, clock=services.clock)


def is_abandoned(deployment: Deployment) -> bool:
    pipeline: list[dict[str, Any]] = [{"$match": {"$expr": {"$lt": ["$lease.until", "$$NOW"]}}}]
    return bool(list(deployment.admin.compliance["jobs"].aggregate(pipeline)))


def test_fifty_equal_requests_at_once_are_one_job(deployment: Deployment) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: record(deployment), range(50)))

    assert deployment.admin.compliance["jobs"].count_documents({}) == 1


def test_the_same_request_id_with_another_payload_is_refused(deployment: Deployment) -> None:
    subject, other = str(ObjectId()), str(ObjectId())
    kind, services = JOBS["erasure.request"], deployment.services()
    submit(kind, {"subject_id": subject}, request_id="r-1", origin="test", services=services)

    with pytest.raises(RequestConflict, match="use a new one"):
        submit(kind, {"subject_id": other}, request_id="r-1", origin="test", services=services)


def test_of_many_claimants_one_gets_the_job(deployment: Deployment) -> None:
    jobs = record(deployment)

    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(lambda n: jobs.claim(ID, owner=f"w{n}", lease=LONG), range(32)))

    assert len([claim for claim in claims if claim]) == 1


def test_a_worker_that_was_taken_over_commits_nothing(deployment: Deployment) -> None:
    record(deployment)
    zombie = run_of(deployment, "zombie", SHORT)
    wait_until(lambda: is_abandoned(deployment), timeout=5, what="the lease ends")
    successor = run_of(deployment, "successor", LONG)
    writes: list[str] = []

    def effect(session: Session) -> Outcome:
        deployment.worker.app["consent"].insert_one(
            {"user_id": ObjectId(), "type": "TERMS", "granted": True, "timestamp": successor.clock.now()},
            session=session,
        )
        writes.append("tried")
        return Outcome()

    with pytest.raises(LeaseLost):
        zombie.commit(effect)

    assert writes
    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert successor.job.fence == zombie.job.fence + 1


def test_effect_entry_and_checkpoint_commit_together_or_not_at_all(deployment: Deployment) -> None:
    record(deployment)
    run = run_of(deployment, "w", LONG)
    now = run.clock.now()
    bad = Entry(event="x", entity_type="user", entity_id="u", action="hold.placed", created_at=now, performed_by="t")
    bad = smuggled(bad, entity_id="ann@x.org")

    def effect(session: Session) -> Outcome:
        consent = {"user_id": ObjectId(), "type": "TERMS", "granted": True, "timestamp": run.clock.now()}
        deployment.worker.app["consent"].insert_one(consent, session=session)
        return Outcome(entries=(bad,), checkpoint={"step": 1})

    with pytest.raises(Exception, match="code 121"):
        run.commit(effect)

    job = run.ledger.find(ID)
    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert job is not None
    assert job.checkpoint == {}


def test_a_heartbeat_keeps_the_lease(deployment: Deployment) -> None:
    record(deployment)
    run = run_of(deployment, "w", SHORT)
    jobs = deployment.admin.compliance["jobs"]
    first = jobs.find_one({"_id": ID}) or {}

    with heartbeat(run, lease=SHORT):
        wait_until(
            lambda: (jobs.find_one({"_id": ID}) or {})["lease"]["until"] > first["lease"]["until"] + 3 * SHORT,
            timeout=10,
            what="the lease is renewed",
        )
        taken = run.ledger.claim(ID, owner="other", lease=LONG)

    assert taken is None


def test_a_stopping_worker_commits_no_further_batch_and_hands_the_job_back(deployment: Deployment) -> None:
    job = deployment.carry_out("audit.verify", {}, should_stop=lambda: True)

    assert job.state is State.QUEUED
    assert deployment.services().ledger.claim(ID, owner="next", lease=LONG) is not None


def test_stopped_is_no_failure() -> None:
    assert issubclass(Stopped, LeaseLost)


def test_the_sweeper_rings_once_for_what_nobody_works_on(deployment: Deployment) -> None:
    record(deployment, "waiting")
    record(deployment, "running")
    deployment.services().ledger.claim(RequestId("running"), owner="w", lease=LONG)

    first, second = sweep(deployment.services()), sweep(deployment.services())

    assert (first, second) == (1, 0)
    assert [job.request_id for job in deployment.published] == ["waiting"]


def test_the_pause_between_rings_doubles_to_five_minutes(deployment: Deployment) -> None:
    record(deployment)

    assert rung_in(deployment, minutes=20) == [0, 1, 3, 7, 12, 17]


def rung_in(deployment: Deployment, *, minutes: int) -> list[int]:
    """The minutes at which a sweep rings for what waits."""
    jobs = deployment.admin.compliance["jobs"]
    rung = []
    for minute in range(minutes):
        jobs.update_many({"ring_at": {"$ne": None}}, [{"$set": {"ring_at": A_MINUTE_EARLIER}}])
        if sweep(deployment.services()):
            rung.append(minute)
    return rung


def test_a_job_that_a_person_tries_again_is_rung_for_as_if_it_were_new(deployment: Deployment) -> None:
    job = submit(JOBS["audit.verify"], {}, request_id=ID, origin="test", services=deployment.services())
    rung_in(deployment, minutes=8)
    desk.ask(job, Ask.PARK, deployment.services(), actor="test")
    desk.retry(job, deployment.services(), actor="test")

    assert rung_in(deployment, minutes=4) == [0, 1, 3]


def test_a_job_that_is_handed_back_is_not_rung_for_before_it_is_due(deployment: Deployment) -> None:
    record(deployment)
    run = run_of(deployment, "w", LONG)
    run.ledger.hand_back(run.claim, delay=LONG)
    early = sweep(deployment.services())
    run.ledger.jobs.update_one({"_id": ID}, [{"$set": {"ring_at": A_MINUTE_EARLIER}}])

    assert (early, sweep(deployment.services())) == (0, 1)


def test_a_sweep_looks_at_no_job_that_is_quiet(deployment: Deployment) -> None:
    jobs = deployment.admin.compliance["jobs"]
    kept = new_document(ID, kind="audit.verify", payload={}, origin="test", now=deployment.services().clock.now())
    later = kept["created_at"] + timedelta(hours=1)
    jobs.insert_many([kept | {"_id": f"quiet-{number}", "ring_at": later, "rings": 3} for number in range(200)])
    jobs.insert_one(kept)
    deployment.admin.compliance.command("profile", 2)
    found = deployment.services().ledger.take_due(limit=500, again_after=LONG)
    deployment.admin.compliance.command("profile", 0)
    looks = deployment.admin.compliance["system.profile"].find({"op": "query", "ns": jobs.full_name})

    assert [job.request_id for job in found] == [ID]
    assert sum(look["docsExamined"] for look in looks) == 1


def test_one_sweep_in_half_an_interval_is_enough(deployment: Deployment) -> None:
    """Beats of any number, a pile of old messages, clocks that differ: the server's clock says whose turn it is."""
    databases = deployment.worker
    taken = [take_turn(databases, "sweep", every=LONG) for _ in range(3)]

    assert taken == [True, False, False]
    assert take_turn(databases, "sweep", every=timedelta()) is True


def test_a_turn_that_a_server_with_another_clock_gave_keeps_nobody_waiting(deployment: Deployment) -> None:
    databases = deployment.worker
    take_turn(databases, "sweep", every=LONG)
    ahead = [{"$set": {"taken_at": {"$add": ["$taken_at", 3_600_000]}}}]
    databases.compliance["schedules"].update_one({"_id": "sweep"}, ahead)

    assert [take_turn(databases, "sweep", every=LONG) for _ in range(2)] == [True, False]


def test_the_sweeper_rings_again_for_an_abandoned_job(deployment: Deployment) -> None:
    record(deployment)
    sweep(deployment.services())
    run_of(deployment, "killed", SHORT)
    wait_until(lambda: is_abandoned(deployment), timeout=5, what="the lease ends")

    assert sweep(deployment.services()) == 1


def test_a_transaction_that_nobody_ends_keeps_no_worker_from_other_work(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed within its transaction leaves it open on the server for a while."""
    monkeypatch.setattr(ledger, "NOTE_LIMIT", SHORT)
    monkeypatch.setattr(ledger, "CLAIM_LIMIT", SHORT)
    jobs = record(deployment)
    run_of(deployment, "killed", SHORT)
    wait_until(lambda: is_abandoned(deployment), timeout=5, what="the lease ends")
    with deployment.admin.client.start_session() as session, session.start_transaction():
        deployment.admin.compliance["jobs"].update_one({"_id": ID}, {"$inc": {"attempts": 1}}, session=session)
        rung = sweep(deployment.services())
        with pytest.raises(StoreUnavailable):
            jobs.claim(ID, owner="successor", lease=LONG)

    assert rung == 1
    assert jobs.claim(ID, owner="successor", lease=LONG) is not None


def test_a_clock_that_is_wrong_does_not_delay_a_job(deployment: Deployment) -> None:
    class Ahead:
        def now(self) -> Any:
            return deployment.services().clock.now() + timedelta(minutes=5)

        def sleep(self, duration: timedelta) -> None:
            raise NotImplementedError

    services = replace(deployment.services(), clock=Ahead())
    submit(JOBS["audit.verify"], {}, request_id="r-1", origin="test", services=services)

    assert deployment.services().ledger.claim(ID, owner="w", lease=LONG) is not None
