"""The health check of the audit log."""

from dataclasses import replace
from pathlib import Path

from deployment import Deployment
from sealed import SealedLog

from compliance.health.check import CHECKS, Scope


def problems(deployment: Deployment, **changes: object) -> tuple[str, ...]:
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, trust=services.trust)
    return CHECKS["audit_log_intact"](replace(scope, **changes)).problems


def test_a_log_that_is_whole_has_no_problem(deployment: Deployment, tmp_path: Path) -> None:
    sealed = SealedLog(deployment, tmp_path / "guard")
    sealed.seal_all()

    assert problems(deployment) == ()


def test_an_altered_entry_and_a_strange_checkpoint_are_problems(deployment: Deployment, tmp_path: Path) -> None:
    sealed = SealedLog(deployment, tmp_path / "guard")
    sealed.seal_all()
    admin = deployment.admin.audit
    admin["audit_log"].update_one({}, {"$set": {"outcome": "denied"}})
    (altered,) = problems(deployment)
    admin["audit_batches"].update_many({}, [{"$set": {"sealed_at": {"$subtract": ["$sealed_at", 10**9]}}}])
    admin["audit_checkpoints"].update_many({}, {"$set": {"note": b"nothing"}})
    strange = problems(deployment)

    assert altered.startswith("MODIFIED entry ")
    assert sum("FORGED checkpoint" in problem for problem in strange) == 1


def test_without_a_key_of_the_log_the_check_says_which_setting_is_missing(deployment: Deployment) -> None:
    trust = replace(deployment.services().trust, log_keys=())

    assert problems(deployment, trust=trust) == ("no key of the audit log is known: set COMPLIANCE_LOG_VKEYS",)
