"""What is late is found and told; what is in time, done or only a plan is not."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from structlog.testing import capture_logs

from compliance.erasure.stage import NEXT, Stage
from compliance.health import CHECKS, Finding, Scope
from compliance.jobs.document import new_document
from compliance.jobs.job import RequestId, State, Terms
from worker import alert

DAY = timedelta(days=1)
OPEN_JOBS = (State.QUEUED, State.RUNNING, State.PARKED)


def request(deployment: Deployment, name: str, *, due_in: timedelta, **changes: Any) -> datetime:
    now = deployment.admin.server_time()
    document = {"_id": name, "subject_id": ObjectId(), "state": "planned", "dry_run": False, "due_at": now + due_in}
    deployment.admin.compliance["erasure_requests"].insert_one(document | {"received_at": now} | changes)
    return now + due_in


def job(deployment: Deployment, name: str, state: State, *, due_in: timedelta | None) -> None:
    now = deployment.admin.server_time()
    terms = Terms(deadline=None if due_in is None else now + due_in)
    document = new_document(
        RequestId(name), kind="audit.verify", payload={}, origin="test", now=now - 9 * DAY, terms=terms
    )
    deployment.admin.compliance["jobs"].insert_one(document | {"state": state.value})


def look(deployment: Deployment, subject_id: ObjectId | None = None) -> Finding:
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, trust=services.trust, subject_id=subject_id)
    return CHECKS["overdue"](scope)


def test_nothing_open_is_nothing_overdue(deployment: Deployment) -> None:
    assert look(deployment) == Finding(problems=(), looked_at=0)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_request_is_overdue_only_while_it_is_open(deployment: Deployment, stage: Stage) -> None:
    due = request(deployment, "late", due_in=-DAY, state=stage.value)
    expected = (f"erasure request late was due {due:%Y-%m-%d %H:%M} UTC",) if stage in NEXT else ()

    assert look(deployment).problems == expected


def test_a_request_is_told_ten_days_before_its_due_date(deployment: Deployment) -> None:
    request(deployment, "in-time", due_in=11 * DAY)
    soon = request(deployment, "soon", due_in=6 * DAY)
    late = request(deployment, "late", due_in=-DAY)
    found = look(deployment)

    assert found.looked_at == 3
    assert found.problems == (
        f"erasure request late was due {late:%Y-%m-%d %H:%M} UTC",
        f"erasure request soon is due {soon:%Y-%m-%d %H:%M} UTC, in less than 10 days",
    )


def test_a_plan_has_no_due_date_to_keep(deployment: Deployment) -> None:
    request(deployment, "plan", due_in=-DAY, dry_run=True)

    assert look(deployment).problems == ()


@pytest.mark.parametrize("state", list(State))
def test_a_job_is_late_only_while_it_is_not_finished(deployment: Deployment, state: State) -> None:
    job(deployment, "late", state, due_in=-DAY)
    job(deployment, "in-time", state, due_in=DAY)
    job(deployment, "any-time", state, due_in=None)
    problems = look(deployment).problems

    assert [line.partition(" has")[0] for line in problems] == (["job late"] if state in OPEN_JOBS else [])


def test_of_one_person_only_that_persons_requests_count(deployment: Deployment) -> None:
    person = ObjectId()
    request(deployment, "mine", due_in=-DAY, subject_id=person)
    request(deployment, "other", due_in=-DAY)
    job(deployment, "late", State.PARKED, due_in=-DAY)
    found = look(deployment, person)

    assert (len(found.problems), found.looked_at) == (1, 1)
    assert "mine" in found.problems[0]


def test_a_job_that_was_never_given_a_deadline_is_none(deployment: Deployment) -> None:
    job(deployment, "old", State.PARKED, due_in=None)
    deployment.admin.compliance["jobs"].update_one({"_id": "old"}, {"$unset": {"deadline": 1}})

    assert look(deployment).problems == ()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Sentry would be told."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(alert, "report_error", lambda error, **tags: told.append({"error": str(error)} | tags))
    return told


def test_what_a_schedule_finds_is_told_once_a_run(deployment: Deployment, reported: list[dict[str, Any]]) -> None:
    request(deployment, "late", due_in=-DAY)
    request(deployment, "later", due_in=-DAY)
    with capture_logs() as logs:
        for _ in range(2):  # the same message twice is one run
            deployment.run("health.check", {"checks": ["overdue", "declared_indexes"], "cause": "schedule"})
    told = [line for line in logs if line["event"] == "health.failed"]

    assert reported == [
        {
            "error": "health check overdue found 2 problems; see `compliance health list`",
            "kind": "health.check/overdue",
            "request_id": "r-1",
            "level": "error",
        }
    ]
    assert [(line["log_level"], line["check"], line["problems"]) for line in told] == [("error", "overdue", 2)]


def test_what_a_person_asks_for_is_answered_and_alarms_nobody(
    deployment: Deployment, reported: list[dict[str, Any]]
) -> None:
    request(deployment, "late", due_in=-DAY)
    done = deployment.run("health.check", {"checks": ["overdue"]})

    assert done.result == {"checks": 1, "failed": ["overdue"]}
    assert reported == []
