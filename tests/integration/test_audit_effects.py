"""An effect and its audit entry commit together, or neither does."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from deployment import Deployment
from entries import CHANGE, ENTRY, ID, NOON, PERSON
from signing import smuggled

from compliance.errors import ConfigurationError, DuplicateEntry, StepRefused
from compliance.jobs.document import new_document
from compliance.jobs.job import to_request_id
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Session


def claimed(deployment: Deployment, request_id: str = "r-1") -> Run:
    services = deployment.services()
    document = new_document(to_request_id(request_id), kind="k", payload={}, origin="test", now=NOON)
    recorded = services.ledger.record(document)
    claim = services.ledger.claim(recorded.request_id, owner="test", lease=timedelta(seconds=30))
    assert claim is not None
    return Run(claim=claim, ledger=services.ledger, log=services.log, clock=services.clock)


def business_write(deployment: Deployment) -> Callable[[Session], None]:
    """Something that a worker may do: a consent of PERSON."""
    consent = deployment.worker.app["consent"]
    document = {"user_id": PERSON, "type": "MARKETING", "granted": True, "timestamp": NOON}
    return lambda session: consent.insert_one(dict(document), session=session) and None


def test_an_entry_that_the_validator_refuses_takes_its_effect_back(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)

    def effect(session: Session) -> Outcome:
        write(session)
        deployment.worker.audit["audit_log"].insert_one({"_id": "not an entry"}, session=session)
        return Outcome()

    with pytest.raises(StepRefused):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0


def test_a_refused_entry_of_an_outcome_takes_its_effect_back(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)
    wrong = smuggled(replace(ENTRY, event="e"), entity_id="ann@example.org")

    def effect(session: Session) -> Outcome:
        write(session)
        return Outcome(entries=(ENTRY, wrong), result={"done": 1})

    with pytest.raises(StepRefused) as refused:
        run.commit(effect)

    assert "ann" not in str(refused.value)
    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert deployment.entries(request_id=None, action=ENTRY.action) == []
    job = deployment.services().ledger.find("r-1")
    assert job is not None
    assert job.state == "running"


@pytest.mark.parametrize("method", ["update_one", "delete_one"])
def test_a_denied_write_inside_a_transaction_commits_nothing(deployment: Deployment, method: str) -> None:
    run, write = claimed(deployment), business_write(deployment)
    run.commit(lambda _: Outcome(entries=(ENTRY,)))
    arguments = ({"_id": ID}, CHANGE) if method == "update_one" else ({"_id": ID},)

    def effect(session: Session) -> Outcome:
        write(session)
        getattr(deployment.worker.audit["audit_log"], method)(*arguments, session=session)
        return Outcome(result={"done": 1})

    with pytest.raises(ConfigurationError):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert len(deployment.entries(_id=ID)) == 1


def test_without_the_right_to_record_nothing_happens(deployment: Deployment) -> None:
    admin = deployment.admin
    person = {
        "_id": PERSON,
        "email": "mara@example.org",
        "role": "listener",
        "status": "ACTIVE",
        "subscription_type": "FREE",
        "created_at": NOON,
    }
    admin.app["users"].insert_one(person)
    log = {"db": admin.audit.name, "collection": "audit_log"}
    admin.client.admin.command(
        "revokePrivilegesFromRole",
        f"compliance_worker@{admin.name}",
        privileges=[{"resource": log, "actions": ["insert"]}],
    )
    message = {
        "event_id": "e-1",
        "subject_id": str(PERSON),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": NOON.isoformat(),
    }

    with pytest.raises(ConfigurationError, match="lacks a privilege"):
        deployment.run("consent.update", message)

    assert admin.app["consent"].count_documents({}) == 0
    assert admin.compliance["consent_events"].count_documents({}) == 0


def test_the_same_event_twice_is_one_entry_and_one_effect(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)

    run.commit(lambda _: Outcome(entries=(ENTRY,)))

    def effect(session: Session) -> Outcome:
        write(session)
        return Outcome(entries=(ENTRY,), checkpoint={"done": True})

    with pytest.raises(DuplicateEntry):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert len(deployment.entries(_id=ID)) == 1
    job = deployment.services().ledger.find("r-1")
    assert job is not None
    assert job.checkpoint == {}
