"""A verification that finds something reaches the person on call: once a run, and behind its entry."""

from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from prometheus_client import CollectorRegistry
from sealed import SealedLog
from structlog.testing import capture_logs

from worker import alert
from worker.telemetry import metrics

STRANGERS = 101


class Told(list[dict[str, Any]]):
    """What Sentry would be told."""


@pytest.fixture
def told(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What is told, each with the entries that were committed by then."""
    found = Told()

    def report(error: Exception, **tags: Any) -> None:
        entries = deployment.entries(action="audit.verified")
        found.append({"error": str(error), "entries": [entry["outcome"] for entry in entries]} | tags)

    monkeypatch.setattr(alert, "report_error", report)
    return found


@pytest.fixture
def altered(deployment: Deployment, tmp_path: Path) -> Deployment:
    """A sealed log with one entry that is altered, and one that is gone."""
    sealed = SealedLog(deployment, tmp_path / "guard.json")
    first, second = sealed.append(2)
    sealed.seal_all()
    log = deployment.admin.audit["audit_log"]
    log.update_one({"_id": first}, {"$set": {"outcome": "denied"}})
    log.delete_one({"_id": second})
    return deployment


def test_what_a_verification_finds_is_told_once_behind_its_entry(altered: Deployment, told: Told) -> None:
    with capture_logs() as lines:
        for _ in range(2):  # the same message twice is one run
            altered.run("audit.verify", {})

    assert told == [
        {
            "error": "the audit log does not verify: 2 findings (MISSING, MODIFIED); see `compliance audit verify`",
            "kind": "audit.verify/MISSING+MODIFIED",
            "request_id": "r-1",
            "level": "fatal",
            "entries": ["failure"],
        }
    ]
    assert [
        (line["log_level"], line["faults"], line["findings"]) for line in lines if line["event"] == "audit.failed"
    ] == [("critical", ["MISSING", "MODIFIED"], 2)]


def test_each_run_tells_and_is_counted(altered: Deployment, told: Told) -> None:
    registry = CollectorRegistry()
    metrics.switch_on(metrics.WORKER_METRICS, registry)
    try:
        altered.run("audit.verify", {}, "r-1")
        altered.run("audit.verify", {}, "r-2")
    finally:
        metrics.switch_off()

    assert [found["request_id"] for found in told] == ["r-1", "r-2"]
    assert registry.get_sample_value("compliance_alerts_total", {"kind": "audit.verify"}) == 2


def test_a_run_that_ends_before_its_entry_tells_nobody(altered: Deployment, told: Told) -> None:
    job = altered.carry_out("audit.verify", {}, should_stop=lambda: True)

    assert job.state == "queued"
    assert told == []


def test_a_log_that_is_whole_alarms_nobody(deployment: Deployment, told: Told, tmp_path: Path) -> None:
    SealedLog(deployment, tmp_path / "guard.json").seal_all()

    assert (deployment.run("audit.verify", {}).result or {})["found"] == 0
    assert told == []


def test_of_many_findings_the_first_are_shown_and_all_are_counted(altered: Deployment, told: Told) -> None:
    strangers = [{"_id": f"{number:032x}"} for number in range(STRANGERS)]
    altered.admin.audit["audit_log"].insert_many(strangers, bypass_document_validation=True)
    result = altered.run("audit.verify", {}).result or {}

    assert (result["found"], len(result["findings"])) == (STRANGERS + 2, 100)
    assert f"{STRANGERS + 2} findings (FORGED, MISSING, MODIFIED)" in told[0]["error"]


def test_writes_that_stay_refused_are_fatal(told: Told) -> None:
    with capture_logs() as lines:
        alert.alert_writes_refused(["things", "users"])

    assert [(line["log_level"], line["collections"]) for line in lines] == [("critical", ["things", "users"])]
    (one,) = told
    assert one["error"].startswith("a migration ended while things, users refused writes")
    assert (one["kind"], one["level"]) == ("migration.writes_refused", "fatal")
