"""Legal holds on a part of a person's data: what stays, what is said of it, and how the rest goes on by itself."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import bson
import oracle
import pytest
from bson import ObjectId
from deployment import Deployment

from compliance.erasure.holds import EVERYTHING, Holds, Part
from compliance.erasure.plan import compile_steps
from compliance.errors import InvalidPayload, UnknownName
from compliance.health import CHECKS, Scope
from worker.attempt import carry_out
from worker.demo.seed import Seeded, insert, seed_documents
from worker.erasures import rest_id
from worker.intake import Message, receive
from worker.resume import sweep
from worker.tasks import JOBS

ERASE = JOBS["erasure.request"]
TRACKS = Part(collection="tracks")
DAY = timedelta(days=1)
Raw = dict[str, dict[str, bytes]]


@pytest.fixture(scope="session")
def few() -> Seeded:
    return seed_documents(5, people=20, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))


@pytest.fixture
def subject(deployment: Deployment, few: Seeded) -> ObjectId:
    insert(few, deployment.admin)
    return few.subjects[0]


def as_bytes(documents: Any) -> Raw:
    """Documents as bytes by their ids; collections without any are left out."""
    found = {name: {str(one["_id"]): bson.encode(one) for one in stored} for name, stored in documents.items()}
    return {name: stored for name, stored in found.items() if stored}


def whole_database(deployment: Deployment) -> Raw:
    database = deployment.admin.app
    return as_bytes({name: list(database[name].find()) for name in database.list_collection_names()})


def expected(deployment: Deployment, seeded: Seeded, subject: ObjectId) -> Raw:
    documents: Any = seeded.documents
    return as_bytes(oracle.expected_after_erasure(documents, subject, deployment.services().data_map))


def place(deployment: Deployment, subject: ObjectId, case: str = "C-1", part: Part = TRACKS, **more: Any) -> str:
    services = deployment.services()
    values = {"until": None, "now": services.clock.now(), "actor": "test", "log": services.log} | more
    Holds(services.databases).place(subject, case, part=part, **values)
    name = f"{subject}:{case}"
    return " ".join([name, *(text for text in (part.collection, part.field) if text)])


def release(deployment: Deployment, subject: ObjectId, case: str = "C-1", part: Part = TRACKS) -> None:
    services = deployment.services()
    now = services.clock.now()
    Holds(services.databases).release(subject, case, part=part, now=now, actor="test", log=services.log)


def erase(deployment: Deployment, subject: ObjectId, request_id: str = "r-1", **changes: Any) -> Any:
    return deployment.run("erasure.request", {"subject_id": str(subject), **changes}, request_id)


def request(deployment: Deployment, request_id: str = "r-1") -> dict[str, Any]:
    return deployment.admin.compliance["erasure_requests"].find_one({"_id": request_id}) or {}


def rests(deployment: Deployment) -> list[str]:
    found = deployment.admin.compliance["jobs"].find({"kind": "erasure.request", "_id": {"$regex": "^held-"}})
    return [job["_id"] for job in found]


def go_on(deployment: Deployment) -> None:
    """Sweep, and carry out what that asks for."""
    services = deployment.services()
    sweep(services)
    for name in rests(deployment):
        carry_out(ERASE, name, services=services, on_progress=lambda _: None)  # type: ignore[arg-type]


def no_residual(deployment: Deployment, subject: ObjectId | None = None) -> tuple[str, ...]:
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, trust=services.trust, subject_id=subject)
    return CHECKS["no_residual"](scope).problems


def test_a_held_collection_stays_with_the_way_to_it_and_all_else_goes(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    before, after = whole_database(deployment), expected(deployment, few, subject)
    place(deployment, subject, until=datetime(2030, 6, 30, 23, 59, 59, tzinfo=UTC), reviewer="R-7")
    job, found = erase(deployment, subject), request(deployment)
    now = whole_database(deployment)
    stays = {"tracks", "artists", "users"}

    assert job.result["state"] == found["state"] == "completed_with_retention"
    assert {name: now[name] for name in stays} == {name: before[name] for name in stays}
    assert {name: now[name] for name in now if name not in stays and not name.endswith("_history")} == {
        name: after[name] for name in after if name not in stays and not name.endswith("_history")
    }
    assert stays <= set(found["left_out"])
    assert [(held["case"], held["collection"]) for held in found["held"]] == [("C-1", "tracks")]


def test_what_a_hold_keeps_stands_in_request_log_and_certificate(deployment: Deployment, subject: ObjectId) -> None:
    place(deployment, subject, until=datetime(2030, 6, 30, 23, 59, 59, tzinfo=UTC))
    erase(deployment, subject)
    kept = {item["collection"]: item for item in request(deployment)["kept"] if "case C-1" in item["ground"]}
    (done,) = deployment.entries(action="erasure.completed")

    assert kept["users"] == {
        "collection": "users",
        "documents": 1,
        "fields": ["*"],
        "ground": "GDPR Art. 17(3)(e), case C-1",
        "why": "a legal hold",
        "until": "2030-06-30",
    }
    assert kept["tracks"]["documents"] > 0
    assert done["details"]["cases"] == ["C-1"]
    assert done["details"]["kept"]["users"] == 1
    assert '"article":"17(3)(e)"' in request(deployment)["certificate"]
    assert '"until":"2030-06-30"' in request(deployment)["certificate"]


def test_what_is_held_is_no_residual_and_what_comes_back_elsewhere_is(
    deployment: Deployment, subject: ObjectId
) -> None:
    place(deployment, subject)
    erase(deployment, subject)
    calm = (no_residual(deployment), no_residual(deployment, subject))
    deployment.admin.app["newsletter"].insert_one({"to": str(subject)})

    assert calm == ((), ())
    assert [problem.split(" ")[3] for problem in no_residual(deployment)] == ["newsletter"]


def test_a_released_hold_lets_the_rest_go_by_itself_and_once(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    after, hold = expected(deployment, few, subject), place(deployment, subject)
    erase(deployment, subject)
    sweep(deployment.services())
    early = rests(deployment)
    release(deployment, subject)
    go_on(deployment)
    go_on(deployment)
    name = rest_id("r-1", hold)

    assert (early, rests(deployment)) == ([], [name])
    assert request(deployment)["rest"] == name
    assert request(deployment, name)["rest_of"] == "r-1"
    assert request(deployment, name)["held"] == []
    assert whole_database(deployment) == after
    assert no_residual(deployment) == ()


def test_a_hold_that_is_released_twice_at_once_lets_the_rest_go_once(deployment: Deployment, subject: ObjectId) -> None:
    place(deployment, subject)
    erase(deployment, subject)
    ready, services = Barrier(4), deployment.services()

    def let_go(_: int) -> str:
        ready.wait(timeout=20)
        try:
            release(deployment, subject)
        except UnknownName:
            return "refused"
        finally:
            sweep(services)
        return "released"

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(let_go, range(4)))
    sweep(services)

    assert sorted(ends) == ["refused", "refused", "refused", "released"]
    assert len(rests(deployment)) == 1
    assert len(deployment.entries(action="hold.released")) == 1


def test_a_hold_that_expires_while_nobody_works_lets_the_rest_go_afterwards(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    after = expected(deployment, few, subject)
    hold = place(deployment, subject, until=deployment.admin.server_time() + DAY)
    erase(deployment, subject)
    past = deployment.admin.server_time() - 9 * DAY  # nobody swept for nine days
    deployment.admin.compliance["holds"].update_one({"_id": hold}, {"$set": {"until": past}})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sweep(deployment.services()), range(4)))
    go_on(deployment)

    assert rests(deployment) == [rest_id("r-1", hold)]
    assert whole_database(deployment) == after


def test_a_request_that_a_hold_rejected_goes_on_when_it_is_released(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    after, hold = expected(deployment, few, subject), place(deployment, subject, part=EVERYTHING)
    refused, planned = erase(deployment, subject), erase(deployment, subject, "r-2", dry_run=True)
    release(deployment, subject, part=EVERYTHING)
    go_on(deployment)

    assert (refused.state, planned.state) == ("rejected", "rejected")
    assert rests(deployment) == [rest_id("r-1", hold)]  # of a plan nothing is left
    assert whole_database(deployment) == after


def test_of_two_holds_the_second_keeps_its_part_when_the_first_ends(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    after = expected(deployment, few, subject)
    place(deployment, subject)
    place(deployment, subject, "C-2", Part(collection="consent"))
    erase(deployment, subject)
    release(deployment, subject)
    go_on(deployment)
    (first,) = rests(deployment)
    between = (request(deployment, first)["state"], [held["case"] for held in request(deployment, first)["held"]])
    release(deployment, subject, "C-2", Part(collection="consent"))
    go_on(deployment)

    assert between == ("completed_with_retention", ["C-2"])
    assert len(rests(deployment)) == 2
    assert whole_database(deployment) == after


def test_a_hold_on_a_part_that_comes_while_an_erasure_runs_counts_from_then_on(
    deployment: Deployment, subject: ObjectId
) -> None:
    services = deployment.services()

    def hold(checkpoint: Any) -> None:
        if checkpoint.get("step") == 1 and not deployment.admin.compliance["holds"].find_one():
            place(deployment, subject, part=Part(collection="users"))

    message = Message(kind=ERASE, values={"subject_id": str(subject)}, request_id="r-1")
    receive(message, services=services, on_progress=hold)
    stopped = services.ledger.find("r-1")
    deployment.admin.compliance["jobs"].update_one({"_id": "r-1"}, {"$set": {"run_at": None}})
    job = erase(deployment, subject)

    assert stopped is not None
    assert (stopped.state, stopped.error) == ("queued", {**(stopped.error or {}), "code": "HoldsChanged"})
    assert job.state == "done"
    assert request(deployment)["left_out"] != []
    assert deployment.admin.app["users"].find_one({"_id": subject}) is not None
    assert len(deployment.entries(action="erasure.replanned")) == 1


def test_a_plan_shows_what_a_hold_would_leave_out(deployment: Deployment, subject: ObjectId) -> None:
    place(deployment, subject)
    erase(deployment, subject, dry_run=True)
    found = request(deployment)

    assert not {"tracks", "artists", "users"} & {step["collection"] for step in found["plan"]}
    assert {"tracks", "artists", "users"} <= {item["collection"] for item in found["kept"]}


def test_a_hold_on_a_field_that_nothing_takes_leaves_nothing_out(
    deployment: Deployment, few: Seeded, subject: ObjectId
) -> None:
    after, services = expected(deployment, few, subject), deployment.services()
    updated = next(step for step in compile_steps(services.data_map) if step.verb == "update")
    place(deployment, subject, part=Part(collection=updated.collection, field="untouched_by_rules"))
    erase(deployment, subject)

    assert (request(deployment)["held"], request(deployment)["left_out"]) == ([], [])
    assert whole_database(deployment) == after


def test_names_and_texts_are_no_ids_of_cases_and_reviewers(deployment: Deployment, subject: ObjectId) -> None:
    for wrong in ({"case": "Smith v. Jones"}, {"reviewer": "ann@x.org"}):
        with pytest.raises(InvalidPayload, match=next(iter(wrong))):
            place(deployment, subject, **wrong)  # type: ignore[arg-type]

    assert deployment.admin.compliance["holds"].count_documents({}) == 0
