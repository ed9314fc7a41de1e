"""What people see of the processes: logs, error reports, metrics."""

from worker.telemetry.attempt import Ending, observed
from worker.telemetry.logs import configure_logging, cut_quotations, mask_addresses
from worker.telemetry.sentry import Level, Monitor, check_in, configure_sentry, report_error, scrub

__all__ = [
    "Ending",
    "Level",
    "Monitor",
    "check_in",
    "configure_logging",
    "configure_sentry",
    "cut_quotations",
    "mask_addresses",
    "observed",
    "report_error",
    "scrub",
]
