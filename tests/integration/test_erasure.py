"""Erasure on a real database, compared with an oracle that shares no code with it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

import bson
import oracle
import pytest
from bson import ObjectId
from deployment import Deployment
from faults import Died, mortal
from waiting import wait_until

from compliance.datamap.collection import Collection
from compliance.datamap.rule import Delete, Locator, Rule
from compliance.erasure.holds import Holds
from compliance.jobs.desk import Desk
from worker.demo.seed import Seeded, insert, seed_documents
from worker.intake import Message, receive
from worker.services import Progress, Services
from worker.tasks import JOBS

PEOPLE = 40
Raw = dict[str, dict[Any, bytes]]


@pytest.fixture(scope="session")
def seeded() -> Seeded:
    return seed_documents(11, people=PEOPLE, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))


@pytest.fixture
def filled(deployment: Deployment, seeded: Seeded) -> Deployment:
    insert(seeded, deployment.admin)
    return deployment


def as_bytes(documents: dict[str, list[dict[str, Any]]]) -> Raw:
    return {
        name: {document["_id"]: bson.encode(document) for document in stored}
        for name, stored in documents.items()
        if stored
    }


def whole_database(deployment: Deployment) -> Raw:
    database = deployment.admin.app
    return as_bytes({name: list(database[name].find()) for name in database.list_collection_names()})


def expected(deployment: Deployment, seeded: Seeded, *subjects: ObjectId) -> Raw:
    documents: Any = seeded.documents
    for subject in subjects:
        documents = oracle.expected_after_erasure(documents, subject, deployment.services().data_map)
    return as_bytes(documents)


def erase(deployment: Deployment, subject: ObjectId, request_id: str = "r-1", **changes: Any) -> Any:
    return deployment.run("erasure.request", {"subject_id": str(subject), **changes}, request_id)


def request(deployment: Deployment, request_id: str = "r-1") -> dict[str, Any]:
    return deployment.admin.compliance["erasure_requests"].find_one({"_id": request_id}) or {}


def actions(deployment: Deployment, request_id: str = "r-1") -> list[str]:
    return [entry["action"] for entry in deployment.entries(request_id=request_id)]


def test_the_person_is_gone_and_nobody_else_is_touched(filled: Deployment, seeded: Seeded) -> None:
    subject = seeded.subjects[0]
    job = erase(filled, subject)

    assert job.state == "done"
    assert whole_database(filled) == expected(filled, seeded, subject)
    assert request(filled)["state"] == "completed_with_retention"


def test_every_heavy_person_can_be_erased_one_after_the_other(filled: Deployment, seeded: Seeded) -> None:
    for number, subject in enumerate(seeded.subjects):
        assert erase(filled, subject, f"r-{number}").state == "done"

    assert whole_database(filled) == expected(filled, seeded, *seeded.subjects)


def test_entries_tell_the_whole_story_in_order(filled: Deployment, seeded: Seeded) -> None:
    erase(filled, seeded.subjects[0])
    told = actions(filled)

    assert told[:4] == ["erasure.requested", "erasure.accepted", "erasure.planned", "erasure.started"]
    assert set(told[4:-3]) == {"erasure.batch"}
    assert told[-3] == "erasure.verifying"
    assert sorted(told[-2:]) == ["erasure.completed", "erasure.verified"]
    assert len(
        list(filled.admin.audit["audit_log"].find({"entity_type": "user", "entity_id": seeded.subjects[0]}))
    ) == len(told)


def test_counts_of_plan_entries_and_request_agree(filled: Deployment, seeded: Seeded) -> None:
    erase(filled, seeded.subjects[0])
    done = request(filled)
    planned = sum(step["documents"] for step in done["plan"])
    affected = sum(count for verbs in done["affected"].values() for count in verbs.values())
    recorded = sum(entry["details"]["documents"] for entry in filled.entries(action="erasure.batch"))

    assert planned == affected == recorded


def test_a_dry_run_shows_the_plan_and_changes_nothing(filled: Deployment, seeded: Seeded) -> None:
    before = whole_database(filled)
    job = erase(filled, seeded.subjects[0], dry_run=True)

    assert job.state == "done"
    assert whole_database(filled) == before
    assert {step["collection"] for step in request(filled)["plan"]} >= {"users", "playlists", "analytics", "tracks"}
    assert actions(filled) == ["erasure.requested", "erasure.accepted", "erasure.planned"]


def test_what_is_kept_names_its_ground(filled: Deployment, seeded: Seeded) -> None:
    erase(filled, seeded.subjects[0])
    kept = {item["collection"]: item for item in request(filled)["kept"]}

    assert kept["tracks"]["ground"] == "GDPR Art. 17(3)(a)"
    assert kept["tracks"]["documents"] > 0


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_a_worker_that_dies_at_every_transaction_loses_and_repeats_nothing(
    filled: Deployment, seeded: Seeded, *, committed: bool
) -> None:
    """Every attempt dies one transaction further: while it is received, planned and started, then at each batch."""
    subject = seeded.subjects[0]
    short = filled.with_settings(lease=timedelta(milliseconds=150), batch_docs=7)
    services = short.services()
    deaths = 0
    begins, batch = ((1, 1, 1), 2) if committed else ((1, 2, 2), 3)
    for at in chain(begins, repeat(batch, 45), repeat(batch + 1, 50)):  # the end is start, second look, completion
        dying = replace(services, databases=mortal(services.databases, at=at, committed=committed))
        try:
            send(subject, dying)
        except Died:
            deaths += 1
            wait_until(lambda: is_free(filled), timeout=5, what="the lease ends")
        else:
            break
    done = request(filled)
    recorded = sum(entry["details"]["documents"] for entry in filled.entries(action="erasure.batch"))

    assert deaths > 20
    assert whole_database(filled) == expected(filled, seeded, subject)
    assert recorded == sum(count for verbs in done["affected"].values() for count in verbs.values())
    assert recorded == sum(step["documents"] for step in done["plan"])
    assert len(filled.entries(action="erasure.completed")) == 1


def send(subject: ObjectId, services: Services, on_progress: Progress = lambda _: None) -> None:
    kind, values = JOBS["erasure.request"], {"subject_id": str(subject)}
    receive(Message(kind=kind, values=values, request_id="r-1"), services=services, on_progress=on_progress)


def is_free(deployment: Deployment, request_id: str = "r-1") -> bool:
    query = {"_id": request_id, "$expr": {"$or": [{"$ne": ["$state", "running"]}, {"$lt": ["$lease.until", "$$NOW"]}]}}
    return deployment.admin.compliance["jobs"].count_documents(query) == 1


def test_data_outside_the_map_stops_the_erasure_before_the_root(filled: Deployment, seeded: Seeded) -> None:
    subject = seeded.subjects[0]
    filled.admin.app["newsletter"].insert_one({"to": oracle.email_of(seeded.documents, subject).upper()})
    job = erase(filled, subject)

    assert (job.state, job.error["code"]) == ("parked", "ErasureIncomplete")
    assert "1 in newsletter" in job.error["message"]
    assert request(filled)["state"] == "residual_found"
    assert filled.admin.app["users"].find_one({"_id": subject}) is not None


def test_a_parked_erasure_goes_on_once_the_data_is_dealt_with(filled: Deployment, seeded: Seeded) -> None:
    subject = seeded.subjects[0]
    filled.admin.app["newsletter"].insert_one({"to": [{"person": str(subject)}]})
    parked = erase(filled, subject)
    filled.admin.app["newsletter"].drop()
    services = filled.services()
    services.databases.transact(lambda session: Desk(services.ledger).retry(parked.request_id, session=session))
    job = erase(filled, subject)

    assert job.state == "done"
    assert whole_database(filled) == expected(filled, seeded, subject)


def test_a_held_person_is_refused_and_untouched(filled: Deployment, seeded: Seeded) -> None:
    subject, services = seeded.subjects[0], filled.services()
    now = services.clock.now()
    Holds(services.databases).place(subject, "C-17", until=None, now=now, actor="test", log=services.log)
    before = whole_database(filled)
    job = erase(filled, subject)

    assert (job.state, job.error["code"]) == ("rejected", "LegalHoldActive")
    assert "C-17" in job.error["message"]
    assert request(filled)["state"] == "rejected"
    assert actions(filled)[:2] == ["erasure.requested", "erasure.rejected"]
    assert whole_database(filled) == before


def test_a_released_or_expired_hold_no_longer_holds(filled: Deployment, seeded: Seeded) -> None:
    subject, services = seeded.subjects[0], filled.services()
    holds, now = Holds(services.databases), services.clock.now()
    holds.place(subject, "C-17", until=None, now=now, actor="test", log=services.log)
    holds.place(subject, "C-18", until=now - timedelta(days=1), now=now, actor="test", log=services.log)
    holds.release(subject, "C-17", now=now, actor="test", log=services.log)

    assert erase(filled, subject).state == "done"
    assert len(filled.entries(action="hold.placed")) == 2


def test_a_hold_that_comes_while_an_erasure_runs_stops_it(filled: Deployment, seeded: Seeded) -> None:
    subject, services = seeded.subjects[0], filled.services()
    holds = Holds(services.databases)

    def place(checkpoint: Any) -> None:
        if checkpoint.get("step") == 3:
            now = services.clock.now()
            holds.place(subject, "C-19", until=None, now=now, actor="test", log=services.log)

    send(subject, services, place)

    assert request(filled)["state"] == "rejected"
    assert filled.admin.app["users"].find_one({"_id": subject}) is not None


def test_the_same_request_again_is_the_same_erasure(filled: Deployment, seeded: Seeded) -> None:
    first = erase(filled, seeded.subjects[0])
    told = actions(filled)
    second = erase(filled, seeded.subjects[0])

    assert second == first
    assert actions(filled) == told


def test_a_second_request_for_an_erased_person_erases_what_came_back(filled: Deployment, seeded: Seeded) -> None:
    subject = seeded.subjects[0]
    erase(filled, subject)
    late = {"user_id": subject, "event_type": "play", "timestamp": datetime(2026, 4, 1, tzinfo=UTC)}
    filled.admin.app["analytics"].insert_one(late)
    job = erase(filled, subject, "r-2")

    assert job.state == "done"
    assert request(filled, "r-2")["affected"] == {"analytics": {"delete": 1}}
    assert whole_database(filled) == expected(filled, seeded, subject)


def test_an_action_that_the_validator_refuses_is_noticed_before_anything_runs(
    filled: Deployment, seeded: Seeded
) -> None:
    services = filled.services()
    wrong = Rule.model_validate(
        {"locate": {"path": "user_id", "key": "user_id"}, "on_erase": {"action": "update", "set": {"user_id": None}}}
    )
    changed = services.data_map.model_copy(
        update={"collections": {**services.data_map.collections, "analytics": Collection(rules=(wrong,))}}
    )
    before = whole_database(filled)
    job: Any = filled.carry_out("erasure.request", {"subject_id": str(seeded.subjects[0])}, data_map=changed)

    assert (job.state, job.error["code"]) == ("parked", "ConfigurationError")
    assert "analytics: on_erase sets user_id to a value that is not objectId" in job.error["message"]
    assert whole_database(filled) == before


def test_a_document_known_by_its_address_only_is_found_without_stating_it_in_a_query(
    filled: Deployment, seeded: Seeded
) -> None:
    services = filled.services()
    subject = seeded.subjects[0]
    rule = Rule(locate=Locator(path="contact", key="email"), on_erase=Delete(action="delete"))
    changed = services.data_map.model_copy(
        update={"collections": {**services.data_map.collections, "leads": Collection(rules=(rule,))}}
    )
    address = oracle.email_of(seeded.documents, subject)
    filled.admin.app["leads"].insert_many([{"contact": f" {address.upper()} "}, {"contact": f"x{address}"}])
    filled.admin.client.admin.command(
        "grantPrivilegesToRole",
        f"compliance_worker@{filled.name}",
        privileges=[
            {"resource": {"db": filled.name, "collection": name}, "actions": ["remove"]}
            for name in ("leads", "leads_shadow")
        ],
    )
    filled.admin.app.command("profile", 2)
    filled.carry_out("erasure.request", {"subject_id": str(subject)}, data_map=changed)
    filled.admin.app.command("profile", 0)
    queries = [str(item.get("command", {})) for item in filled.admin.app["system.profile"].find()]

    assert [item["contact"] for item in filled.admin.app["leads"].find()] == [f"x{address}"]
    assert queries
    assert not [query for query in queries if address.casefold() in query.casefold()]
