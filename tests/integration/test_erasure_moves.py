"""How a request moves: grace, withdrawal, another data map, errors, extensions, and many at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment

from compliance.audit.entry import Cause
from compliance.datamap.kept import DATA_MAPS, get_map, keep_map
from compliance.datamap.model import DataMap
from compliance.erasure.deadline import Reason
from compliance.erasure.extension import extend
from compliance.erasure.request import Requests
from compliance.erasure.stage import Stage
from compliance.errors import IntegrityError, InvalidPayload, UnknownName
from compliance.jobs.job import Ask
from compliance.period import parse_period
from worker import desk
from worker.demo.seed import Seeded, insert, seed_documents
from worker.intake import Message, receive
from worker.tasks import JOBS

ERASE = JOBS["erasure.request"]


@pytest.fixture(scope="session")
def few() -> Seeded:
    return seed_documents(5, people=20, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))


@pytest.fixture
def subject(deployment: Deployment, few: Seeded) -> ObjectId:
    insert(few, deployment.admin)
    return few.subjects[0]


def erase(deployment: Deployment, subject: ObjectId, request_id: str = "r-1", **changes: Any) -> Any:
    return deployment.run("erasure.request", {"subject_id": str(subject), **changes}, request_id)


def again(deployment: Deployment, subject: ObjectId, **services: Any) -> Any:
    return deployment.carry_out("erasure.request", {"subject_id": str(subject)}, **services)


def request(deployment: Deployment, request_id: str = "r-1") -> dict[str, Any]:
    return deployment.admin.compliance["erasure_requests"].find_one({"_id": request_id}) or {}


def actions(deployment: Deployment, request_id: str = "r-1") -> list[str]:
    return [entry["action"] for entry in deployment.entries(request_id=request_id) if entry["entity_type"] == "user"]


def is_there(deployment: Deployment, subject: ObjectId) -> bool:
    return deployment.admin.app["users"].find_one({"_id": subject}) is not None


def let_grace_end(deployment: Deployment) -> None:
    past = deployment.admin.server_time() - timedelta(seconds=1)
    own = deployment.admin.compliance
    own["erasure_requests"].update_one({"_id": "r-1"}, {"$set": {"grace_until": past}})
    own["jobs"].update_one({"_id": "r-1"}, {"$set": {"run_at": past}})


def other_map(deployment: Deployment) -> DataMap:
    """The same rules under another digest."""
    return deployment.services().data_map.model_copy(update={"consent_types": ("something_else",)})


def test_in_its_time_of_grace_nobody_works_on_a_request_and_nothing_is_touched(
    deployment: Deployment, subject: ObjectId
) -> None:
    job = erase(deployment, subject, grace="P3D")
    found = request(deployment)
    rung = deployment.services().ledger.take_due(limit=10, again_after=timedelta(seconds=1))

    assert (job.state, job.error["code"], job.owner) == ("queued", "NotDue", None)
    assert abs(job.run_at - found["grace_until"]) < timedelta(seconds=5)
    assert found["state"] == "grace"
    assert timedelta(days=2, hours=23) < found["grace_until"] - found["received_at"] < timedelta(days=3, hours=1)
    assert actions(deployment)[-2:] == ["erasure.planned", "erasure.grace"]
    assert deployment.services().ledger.claim(job.request_id, owner="eager", lease=timedelta(seconds=5)) is None
    assert rung == []
    assert is_there(deployment, subject)


def test_the_grace_of_the_settings_counts_where_the_request_states_none(
    deployment: Deployment, subject: ObjectId
) -> None:
    careful = deployment.with_settings(erasure_grace=parse_period("P1D"))
    erase(careful, subject)
    erase(careful, subject, "r-2", grace="P0D")

    assert request(deployment)["state"] == "grace"
    assert request(deployment, "r-2")["state"] == "completed_with_retention"


def test_behind_its_time_of_grace_a_request_is_carried_out(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject, grace="P3D")
    let_grace_end(deployment)
    job = erase(deployment, subject, grace="P3D")

    assert job.state == "done"
    assert request(deployment)["state"] == "completed_with_retention"
    assert not is_there(deployment, subject)


def test_a_worker_that_comes_too_early_waits_on(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject, grace="P3D")
    deployment.admin.compliance["jobs"].update_one({"_id": "r-1"}, {"$set": {"run_at": None}})
    job = erase(deployment, subject, grace="P3D")

    assert (job.state, request(deployment)["state"]) == ("queued", "grace")
    assert job.run_at is not None
    assert actions(deployment).count("erasure.grace") == 1


def test_who_withdraws_within_the_grace_is_left_as_they_were(deployment: Deployment, subject: ObjectId) -> None:
    job = erase(deployment, subject, grace="P3D")
    at_once = desk.ask(job, Ask.CANCEL, deployment.services(), actor="officer")
    let_grace_end(deployment)
    erase(deployment, subject, grace="P3D")
    (entry,) = deployment.entries(action="erasure.withdrawn")

    assert at_once
    assert request(deployment)["state"] == "withdrawn"
    assert entry["details"] == {"from": "grace", "documents": 0}
    assert is_there(deployment, subject)


def test_who_withdraws_an_erasure_that_runs_is_told_what_was_done(deployment: Deployment, subject: ObjectId) -> None:
    services = deployment.services()

    def withdraw(checkpoint: Any) -> None:
        job = services.ledger.find("r-1")
        if checkpoint.get("step") == 2 and job is not None and job.asked is None:
            desk.ask(job, Ask.CANCEL, services, actor="officer")

    message = Message(kind=ERASE, values={"subject_id": str(subject)}, request_id="r-1")
    receive(message, services=services, on_progress=withdraw)
    (entry,) = deployment.entries(action="erasure.withdrawn")
    done = sum(batch["details"]["documents"] for batch in deployment.entries(action="erasure.batch"))

    assert request(deployment)["state"] == "withdrawn"
    assert entry["details"] == {"from": "executing", "documents": done}
    assert done > 0
    assert is_there(deployment, subject)


def test_a_plan_of_another_data_map_is_not_carried_out_before_somebody_says_so(
    deployment: Deployment, subject: ObjectId
) -> None:
    erase(deployment, subject, grace="P3D")
    let_grace_end(deployment)
    changed, values = other_map(deployment), {"subject_id": str(subject), "grace": "P3D"}
    refused: Any = deployment.carry_out("erasure.request", values, data_map=changed)

    assert (refused.state, refused.error["code"]) == ("parked", "PlanOutdated")
    assert "compliance erasure replan r-1" in refused.error["message"]
    assert is_there(deployment, subject)

    services = deployment.services()
    services.databases.transact(lambda session: Requests(services.databases).ask_replan("r-1", session=session))
    desk.retry(refused, services, actor="officer")
    job = deployment.carry_out("erasure.request", values, data_map=changed)
    kept = {found["_id"] for found in deployment.admin.compliance[DATA_MAPS].find()}

    assert job.state == "done"
    assert request(deployment)["map_digest"] == changed.digest
    assert kept == {services.data_map.digest, changed.digest}
    assert get_map(services.databases, changed.digest) == changed.canonical
    assert actions(deployment).count("erasure.replanned") == 1


def test_a_data_map_that_was_altered_where_it_is_kept_is_not_believed(deployment: Deployment) -> None:
    data_map, databases = deployment.services().data_map, deployment.worker
    keep_map(databases, data_map, now=datetime(2026, 1, 1, tzinfo=UTC))
    keep_map(databases, data_map, now=datetime(2026, 1, 2, tzinfo=UTC))
    deployment.admin.compliance[DATA_MAPS].update_one({}, {"$set": {"map": "{}"}})

    with pytest.raises(UnknownName, match="it was altered"):
        get_map(databases, data_map.digest)
    with pytest.raises(UnknownName, match="no data map"):
        get_map(databases, "0" * 64)


def test_what_was_found_again_is_planned_anew_at_the_next_attempt(deployment: Deployment, subject: ObjectId) -> None:
    deployment.admin.app["newsletter"].insert_one({"to": str(subject)})
    parked = erase(deployment, subject)
    assert request(deployment)["state"] == "residual_found"
    desk.retry(parked, deployment.services(), actor="officer")
    assert again(deployment, subject).state == "parked"  # it is still there: never completed
    deployment.admin.app["newsletter"].drop()
    desk.retry(parked, deployment.services(), actor="officer")
    told = actions(deployment)

    assert again(deployment, subject).state == "done"
    assert told.count("erasure.replanned") == 1
    assert request(deployment)["state"] == "completed_with_retention"
    assert actions(deployment).count("erasure.completed") == 1


def test_of_two_moves_from_one_stage_one_is_made(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject, grace="P3D")
    databases = deployment.worker
    requests, now, ready = Requests(databases), deployment.admin.server_time(), Barrier(8)

    def withdraw(_: int) -> bool:
        ready.wait(timeout=20)
        move = lambda session: requests.try_move("r-1", Stage.WITHDRAWN, now=now, session=session)  # noqa: E731
        return databases.transact(move) is not None

    version = request(deployment)["version"]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(withdraw, range(8)))

    assert sum(made) == 1
    assert request(deployment)["version"] == version + 1


def test_a_move_that_the_table_forbids_is_refused(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject, grace="P3D")
    databases, now = deployment.worker, deployment.admin.server_time()

    with pytest.raises(IntegrityError, match="cannot become completed"):
        databases.transact(
            lambda session: Requests(databases).move("r-1", Stage.COMPLETED, {}, now=now, session=session)
        )


def test_an_extension_moves_the_due_date_and_the_deadline_and_is_told(
    deployment: Deployment, subject: ObjectId
) -> None:
    erase(deployment, subject, grace="P3D")
    before, services = request(deployment), deployment.services()
    due = extend(
        services.databases,
        "r-1",
        months=2,
        reason=Reason.COMPLEXITY,
        now=services.clock.now(),
        actor="officer",
        log=services.log.caused_by(Cause(channel="cli")),
    )
    (entry,) = deployment.entries(action="erasure.extended")
    job: Any = services.ledger.find("r-1")

    assert request(deployment)["due_at"] == job.terms.deadline == due > before["due_at"]
    assert (entry["details"]["reason"], entry["performed_by"]) == ("complexity", "officer")


def test_what_is_answered_is_not_extended(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject)
    services = deployment.services()

    with pytest.raises(InvalidPayload, match="nothing is due any more"):
        extend(
            services.databases,
            "r-1",
            months=1,
            reason=Reason.NUMBER_OF_REQUESTS,
            now=services.clock.now(),
            actor="officer",
            log=services.log,
        )


def test_the_same_request_fifty_times_at_once_is_one_erasure(deployment: Deployment, subject: ObjectId) -> None:
    services = deployment.services()
    message = Message(kind=ERASE, values={"subject_id": str(subject)}, request_id="r-1")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: receive(message, services=services), range(50)))
    counted = {action: actions(deployment).count(action) for action in set(actions(deployment))}

    assert deployment.admin.compliance["erasure_requests"].count_documents({}) == 1
    assert request(deployment)["state"] == "completed_with_retention"
    assert {action: count for action, count in counted.items() if action != "erasure.batch"} == dict.fromkeys(
        set(counted) - {"erasure.batch"}, 1
    )


def test_a_second_request_names_the_one_that_erased_the_person(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject)
    job = erase(deployment, subject, "r-2")

    assert request(deployment, "r-2")["earlier"] == "r-1"
    assert (job.result["documents"], job.result["earlier"]) == (0, "r-1")
    assert "earlier" not in request(deployment)


def test_overdue_requests_are_listed_first_due_first(deployment: Deployment, subject: ObjectId) -> None:
    erase(deployment, subject, grace="P3D")
    erase(deployment, subject, "r-2", grace="P2D")
    erase(deployment, subject, "r-3", dry_run=True)
    own, now = deployment.admin.compliance["erasure_requests"], deployment.admin.server_time()
    own.update_one({"_id": "r-1"}, {"$set": {"due_at": now - timedelta(days=1)}})
    own.update_one({"_id": "r-2"}, {"$set": {"due_at": now - timedelta(days=2)}})
    own.update_one({"_id": "r-3"}, {"$set": {"due_at": now - timedelta(days=3)}})
    requests = Requests(deployment.worker)

    assert [found["_id"] for found in requests.listed(overdue=True, limit=9)] == ["r-2", "r-1"]
    assert [found["_id"] for found in requests.listed(state=Stage.PLANNED, limit=9)] == ["r-3"]
    assert requests.listed(state=Stage.PLANNED, overdue=True, limit=9) == []
