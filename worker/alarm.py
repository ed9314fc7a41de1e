"""Raise the alarm: keep an incident of the audit database, and tell people at once."""

import structlog

from compliance.audit.incident import Incident, record
from compliance.errors import IntegrityError
from worker.services import Services
from worker.telemetry import metrics, report_error

log = structlog.get_logger(__name__)


def raise_alarm(incident: Incident, services: Services) -> None:
    """Keep *incident* and tell people, once for each.

    Raises:
        StoreUnavailable: When it could not be kept; call again.
    """
    if not record(services.databases, incident):
        return
    log.critical("audit.incident", kind=incident.kind.value, what=incident.sentence)
    metrics.INCIDENTS.inc(incident.kind.value)
    report_error(IntegrityError(incident.sentence), kind=f"audit.{incident.kind.value}", request_id="none")
