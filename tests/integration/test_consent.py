"""Consent: one transaction of event, current state and entry."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def person(deployment: Deployment) -> ObjectId:
    user = {
        "email": "mara@example.org",
        "role": "listener",
        "status": "ACTIVE",
        "subscription_type": "FREE",
        "created_at": NOON,
    }
    return deployment.admin.app["users"].insert_one(user).inserted_id


def event(person: ObjectId, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e-1",
        "subject_id": str(person),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": NOON.isoformat(),
    } | changes


def current(deployment: Deployment) -> list[tuple[str, bool, datetime]]:
    found = deployment.admin.app["consent"].find()
    return [(item["type"], item["granted"], item["timestamp"]) for item in found]


def test_a_grant_becomes_state_event_and_entry(deployment: Deployment, person: ObjectId) -> None:
    job = deployment.run("consent.update", event(person))

    assert job.state == "done"
    assert current(deployment) == [("MARKETING", True, NOON)]
    assert [item["_id"] for item in deployment.admin.compliance["consent_events"].find()] == ["e-1"]
    assert [item["action"] for item in deployment.entries(entity_type="user", entity_id=person)] == ["consent.granted"]


def test_the_same_message_twice_is_one_event(deployment: Deployment, person: ObjectId) -> None:
    deployment.run("consent.update", event(person))
    deployment.run("consent.update", event(person))

    assert deployment.admin.compliance["consent_events"].count_documents({}) == 1
    assert len(deployment.entries(action="consent.granted")) == 1


def test_an_older_event_that_arrives_late_changes_nothing_but_is_kept(deployment: Deployment, person: ObjectId) -> None:
    late = event(person, event_id="e-2", granted=False, occurred_at=(NOON - timedelta(days=1)).isoformat())
    deployment.run("consent.update", event(person))
    deployment.run("consent.update", late, "r-2")

    assert current(deployment) == [("MARKETING", True, NOON)]
    assert deployment.admin.compliance["consent_events"].count_documents({}) == 2


def test_a_withdrawal_at_the_same_moment_wins(deployment: Deployment, person: ObjectId) -> None:
    deployment.run("consent.update", event(person, granted=False))
    deployment.run("consent.update", event(person, event_id="e-2"), "r-2")

    assert current(deployment) == [("MARKETING", False, NOON)]


def test_consent_of_nobody_is_refused_and_leaves_nothing(deployment: Deployment) -> None:
    job = deployment.run("consent.update", event(ObjectId()))

    assert (job.state, (job.error or {})["code"]) == ("rejected", "UnknownSubject")
    assert current(deployment) == []
    assert deployment.admin.compliance["consent_events"].count_documents({}) == 0


def test_an_unknown_purpose_is_refused_with_the_known_ones(deployment: Deployment, person: ObjectId) -> None:
    job = deployment.run("consent.update", event(person, type="TRACKING"))

    assert job.state == "rejected"
    assert "MARKETING" in (job.error or {})["message"]


def test_people_who_have_not_granted_can_be_listed(deployment: Deployment, person: ObjectId) -> None:
    deployment.run("consent.update", event(person, granted=False))

    assert [item["user_id"] for item in deployment.admin.app["consent"].find({"granted": False})] == [person]


def test_many_first_events_at_once_leave_one_current_state_even_without_an_index(
    deployment: Deployment, person: ObjectId
) -> None:
    deployment.admin.app["consent"].drop_index("ix_consent_user_type")
    events = [
        event(person, event_id=f"e-{n}", granted=n % 2 == 0, occurred_at=(NOON + timedelta(seconds=n)).isoformat())
        for n in range(16)
    ]
    deployment.services()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda found: deployment.run("consent.update", found, f"r-{found['event_id']}"), events))

    assert current(deployment) == [("MARKETING", False, NOON + timedelta(seconds=15))]
