"""What must reach the person on call: one error in the log and one report, grouped by what was found."""

import structlog
from sentry_sdk.integrations.logging import ignore_logger

from compliance.errors import CheckFailed
from worker.telemetry import report_error

log = structlog.get_logger(__name__)
ignore_logger(__name__)  # the report goes by itself, with tags and a fingerprint; the line of the log would be a second


def alert_failed_check(check: str, *, problems: int, request_id: str) -> None:
    """Tell that *check* failed, in the run of *request_id*; what was found stays in ``health_checks``."""
    log.error("health.failed", check=check, problems=problems, request_id=request_id)
    error = CheckFailed(f"health check {check} found {problems} problems; see `compliance health list`")
    report_error(error, kind=f"health.check/{check}", request_id=request_id)
