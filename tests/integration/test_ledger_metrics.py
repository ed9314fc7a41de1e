"""The gauges of jobs and requests: right, flat beside finished jobs, and honest when MongoDB is away."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from prometheus_client import CollectorRegistry, Metric

from compliance.jobs.document import finished, new_document
from compliance.jobs.job import RequestId, State, Terms
from compliance.mongo import Databases, open_client
from compliance.roles import Role
from worker.job import JOBS as KINDS
from worker.telemetry import ledger
from worker.telemetry.ledger import LedgerCollector, overdue_requests, unfinished_jobs

NOW = datetime.now(UTC)  # noqa: TID251 - the server's clock is compared with it
AGO, AHEAD = NOW - timedelta(hours=1), NOW + timedelta(hours=1)


def a_job(number: int, **changes: Any) -> dict[str, Any]:
    deadline = changes.pop("deadline", None)
    document = new_document(
        RequestId(f"r-{number}"),
        kind=changes.pop("kind", "audit.verify"),
        payload={},
        origin="test",
        now=AGO,
        terms=Terms(deadline=deadline),
    )
    return document | changes


def values(found: list[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in found
        for sample in metric.samples
        if sample.value
    }


@pytest.fixture
def collector(deployment: Deployment) -> LedgerCollector:
    return LedgerCollector(deployment.services(Role.SEALER).databases, KINDS)


def test_the_gauges_say_what_waits_and_what_is_late(deployment: Deployment, collector: LedgerCollector) -> None:
    held = {"state": "running", "lease": {"owner": "w", "until": AHEAD}}
    abandoned = {"state": "running", "lease": {"owner": "w", "until": AGO}}
    deployment.admin.compliance["jobs"].insert_many(
        [
            a_job(1),
            a_job(2, run_at=AHEAD, deadline=AGO),
            a_job(3, **held, kind="health.check"),
            a_job(4, **abandoned, kind="erasure.request", deadline=AGO),
            a_job(5, state="parked", kind="erasure.request", finished_at=AGO, deadline=AGO),
            a_job(6, kind="of.another.version"),
            *(a_job(number) | finished(State.DONE, now=AGO) for number in range(10, 20)),
        ]
    )
    request = {"state": "executing", "dry_run": False, "due_at": AGO}
    deployment.admin.compliance["erasure_requests"].insert_many(
        [
            request | {"_id": "late", "subject_id": ObjectId()},
            request | {"_id": "in time", "due_at": AHEAD},
            request | {"_id": "done", "state": "completed"},
            request | {"_id": "a plan", "state": "planned", "dry_run": True},
        ]
    )
    found = values(list(collector.collect()))
    ages = {name: found.pop(name) for name in list(found) if "age_seconds" in name[0]}

    assert found == {
        ("compliance_ledger_readable",): 1,
        ("compliance_erasure_requests_overdue",): 1,
        ("compliance_jobs", "audit.verify", "queued"): 2,
        ("compliance_jobs", "health.check", "running"): 1,
        ("compliance_jobs", "erasure.request", "running"): 1,
        ("compliance_jobs", "erasure.request", "parked"): 1,
        ("compliance_jobs_past_deadline", "audit.verify"): 1,
        ("compliance_jobs_past_deadline", "erasure.request"): 2,
    }
    assert set(ages) == {
        ("compliance_oldest_due_job_age_seconds", "audit.verify"),
        ("compliance_oldest_due_job_age_seconds", "erasure.request"),
    }
    elapsed = (datetime.now(UTC) - NOW).total_seconds()  # noqa: TID251 - the server's clock is compared with it
    assert all(3500 < age < 3700 + elapsed for age in ages.values())


def test_finished_jobs_and_answered_requests_are_not_looked_at(deployment: Deployment) -> None:
    jobs, requests = (deployment.admin.compliance[name] for name in ("jobs", "erasure_requests"))
    jobs.insert_many(a_job(number) | finished(State.DONE, now=AGO) for number in range(3000))
    jobs.insert_many(a_job(number) for number in range(3000, 3005))
    requests.insert_many({"_id": f"r-{number}", "state": "completed", "due_at": AGO} for number in range(3000))
    requests.insert_one({"_id": "open", "state": "received", "due_at": AGO})

    assert looked_at(deployment, "jobs", unfinished_jobs()) <= 5
    assert looked_at(deployment, "erasure_requests", overdue_requests()) <= 1


def looked_at(deployment: Deployment, collection: str, pipeline: list[dict[str, Any]]) -> int:
    explained = deployment.admin.compliance.command(
        "explain", {"aggregate": collection, "pipeline": pipeline, "cursor": {}}, verbosity="executionStats"
    )
    return _examined(explained)


def _examined(explained: Mapping[str, Any]) -> int:
    if "executionStats" in explained:
        return int(explained["executionStats"]["totalDocsExamined"])
    return int(explained["stages"][0]["$cursor"]["executionStats"]["totalDocsExamined"])


def test_mongodb_is_not_asked_again_within_seconds(deployment: Deployment, collector: LedgerCollector) -> None:
    first = list(collector.collect())
    deployment.admin.compliance["jobs"].insert_one(a_job(1))
    second = list(collector.collect())

    assert first == second
    assert values(list(LedgerCollector(collector._databases, KINDS).collect())) != values(second)


def test_registering_asks_nothing_and_a_server_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATIENCE_SECONDS", 0.2)
    with open_client("mongodb://127.0.0.1:9/?directConnection=true", app_name="test") as client:
        registry = CollectorRegistry()
        registry.register(LedgerCollector(Databases(client, "nowhere"), KINDS))

        assert registry.get_sample_value("compliance_ledger_readable") == 0
        assert registry.get_sample_value("compliance_erasure_requests_overdue") is None
