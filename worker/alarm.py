"""The alarm: an incident of the audit database reaches people at once, and is kept.

People are told before the incident is kept: where MongoDB cannot take it, they know already.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from compliance.audit.incident import Incident, Kind, record_all
from compliance.errors import AuditTampered
from compliance.mongo import Databases
from worker.telemetry import metrics, report_error

log = structlog.get_logger(__name__)

REMEMBERED = 1000
LOSING = {Kind.DELETED, Kind.DROPPED, Kind.RENAMED, Kind.REPLACED}


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tells of incidents and keeps them; each thread has its own."""

    databases: Databases
    _told: dict[str, Incident] = field(default_factory=dict)

    def ring(self, incidents: Sequence[Incident]) -> None:
        """Tell people of those among *incidents* that they were not told of, then keep them all.

        Raises:
            StoreUnavailable: MUST be called again with the same incidents; nobody is told of them twice.
        """
        unique = {incident.id: incident for incident in incidents}
        new = {found: incident for found, incident in unique.items() if found not in self._told}
        self._remember(new)
        for kind, number in sorted(Counter(incident.kind for incident in new.values()).items()):
            first = next(incident for incident in new.values() if incident.kind is kind)
            _tell(first, number)
        if any(incident.kind in LOSING for incident in unique.values()):
            unique = self._told | unique  # those that were kept before may be what was removed
        record_all(self.databases, list(unique.values()))

    def _remember(self, incidents: dict[str, Incident]) -> None:
        self._told.update(incidents)
        for oldest in list(self._told)[:-REMEMBERED]:
            del self._told[oldest]


def _tell(incident: Incident, number: int) -> None:
    """Tell of *number* incidents of one kind, *incident* being the first."""
    metrics.INCIDENTS.inc(incident.kind.value, by=number)
    log.critical("audit.incident", kind=incident.kind.value, what=incident.sentence, incidents=number)
    others = f" (and {number - 1} more)" if number > 1 else ""
    error = AuditTampered(f"{incident.kind}: {incident.sentence}{others}; see audit_incidents")
    report_error(error, kind=f"audit.incident/{incident.kind}", request_id="none", level="fatal")
