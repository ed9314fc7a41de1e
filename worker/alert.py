"""What must reach the person on call: a line in the log, a report, and a count, grouped by what was found.

MUST be told behind the commit of what was found: then a run that is delivered again does not tell again.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from sentry_sdk.integrations.logging import ignore_logger

from compliance.errors import CheckFailed, PromotionRefused
from worker.telemetry import metrics, report_error

log = structlog.get_logger(__name__)
ignore_logger(__name__)  # the report goes by itself, with tags and a fingerprint; the line of the log would be a second


def alert_failed_check(check: str, *, problems: int, request_id: str) -> None:
    """Tell that *check* failed, in the run of *request_id*; what was found stays in ``health_checks``."""
    kind = f"health.check/{check}"
    log.error("health.failed", check=check, problems=problems, request_id=request_id)
    error = CheckFailed(f"health check {check} found {problems} problems; see `compliance health list`")
    metrics.ALERTS.inc(kind)
    report_error(error, kind=kind, request_id=request_id, level="error")


def alert_broken_log(faults: Iterable[str], *, findings: int, request_id: str) -> None:
    """Tell that the audit log does not verify, in the run of *request_id*; what was found stays in its job.

    Args:
        faults: The kinds of the findings.
        findings: How many there are.
        request_id: The run.
    """
    kinds = sorted(set(faults))
    log.critical("audit.failed", faults=kinds, findings=findings, request_id=request_id)
    error = CheckFailed(
        f"the audit log does not verify: {findings} findings ({', '.join(kinds)}); see `compliance audit verify`"
    )
    metrics.ALERTS.inc("audit.verify")
    report_error(error, kind=f"audit.verify/{'+'.join(kinds)}", request_id=request_id, level="fatal")


def alert_emergency(migrations: Sequence[str], *, request_id: str) -> None:
    """Tell that *migrations* ran in an emergency; the reason stays in the audit log."""
    log.error("migration.emergency", migrations=list(migrations), request_id=request_id)
    error = PromotionRefused(
        f"{len(migrations)} migrations ran that staging has not vouched for ({', '.join(migrations)}); see the entries "
        "migration.emergency of the audit log"
    )
    metrics.ALERTS.inc("migration.emergency")
    report_error(error, kind="migration.emergency", request_id=request_id, level="error")


def alert_data_comes_back(*, times: int, pause: timedelta, request_id: str) -> None:
    """Tell that data of one erased person comes back again and again; it is erased by *request_id*, after *pause*."""
    seconds = int(pause.total_seconds())
    log.error("erasure.keeps_returning", times=times, pause_seconds=seconds, request_id=request_id)
    error = CheckFailed(
        f"data of one person came back {times} times after the erasure, so the next one waits {seconds} s; find who "
        "writes it: the entries erasure.returned of the audit log name the collections"
    )
    metrics.ALERTS.inc("erasure.returned")
    report_error(error, kind="erasure.returned", request_id=request_id, level="error")


def alert_writes_refused(collections: Sequence[str]) -> None:
    """Tell that a migration which ended left *collections* refusing writes; they are about to be let in."""
    log.critical("migration.writes_refused", collections=list(collections))
    error = CheckFailed(
        f"a migration ended while {', '.join(collections)} refused writes; the reconciler lets them in, as "
        "`compliance migrate up` does"
    )
    report_error(error, kind="migration.writes_refused", request_id="none", level="fatal")
