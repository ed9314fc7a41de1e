"""The alarm: an incident of the audit database reaches people at once, and is kept.

People are told before the incident is kept: where MongoDB cannot take it, they know already. Of a state they are told
when it begins, and again when it had stopped for an hour.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from compliance.audit.incident import Incident, Kind, find_begin, record_all
from compliance.errors import AuditTampered, ComplianceError
from compliance.mongo import Databases
from worker.telemetry import Level, metrics, report_error

log = structlog.get_logger(__name__)

T = TypeVar("T")

REMEMBERED = 1000
QUIET = timedelta(hours=1)  # a state that was not found for longer has ended: found again, it is another episode
EXPECTED = {Kind.PRUNED}  # somebody knows of it, or nobody does
LOSING = {Kind.DELETED, Kind.DROPPED, Kind.RENAMED, Kind.REPLACED}


@dataclass(slots=True)
class Episode:
    """A state that lasts."""

    began: datetime
    seen: datetime


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tells of incidents and keeps them; each thread has its own."""

    databases: Databases
    _told: dict[str, Incident] = field(default_factory=dict)
    _episodes: dict[str, Episode] = field(default_factory=dict)

    def ring(self, incidents: Sequence[Incident]) -> None:
        """Tell people of those among *incidents* that they were not told of, then keep them all.

        Raises:
            StoreUnavailable: MUST be called again with the same incidents; nobody is told of them twice.
        """
        happened = (self._episode(found) if found.is_state else found for found in incidents)
        unique = {incident.id: incident for incident in happened}
        new = {found: incident for found, incident in unique.items() if found not in self._told}
        _remember(self._told, new)
        for kind, number in sorted(Counter(incident.kind for incident in new.values()).items()):
            first = next(incident for incident in new.values() if incident.kind is kind)
            _tell(first, number)
        if any(incident.kind in LOSING for incident in unique.values()):
            unique = self._told | unique  # those that were kept before may be what was removed
        record_all(self.databases, list(unique.values()))

    def _episode(self, state: Incident) -> Incident:
        known = self._episodes.pop(state.id, None)
        if known is None or state.at - known.seen > QUIET:
            known = Episode(began=self._began_before(state) or state.at, seen=state.at)
        known.seen = max(known.seen, state.at)
        _remember(self._episodes, {state.id: known})
        return state.episode(known.began)

    def _began_before(self, state: Incident) -> datetime | None:
        """Return when it began as another watcher noticed, or this one before it was started again."""
        with suppress(ComplianceError):  # people must be told all the same
            return find_begin(self.databases, state, after=state.at - QUIET)
        return None


def _remember(known: dict[str, T], new: dict[str, T]) -> None:
    known.update(new)
    for oldest in list(known)[:-REMEMBERED]:
        del known[oldest]


def _tell(incident: Incident, number: int) -> None:
    """Tell of *number* incidents of one kind, *incident* being the first."""
    metrics.INCIDENTS.inc(incident.kind.value, by=number)
    is_expected = incident.kind in EXPECTED
    say = log.warning if is_expected else log.critical
    say("audit.incident", kind=incident.kind.value, what=incident.sentence, incidents=number)
    others = f" (and {number - 1} more)" if number > 1 else ""
    error = AuditTampered(f"{incident.kind}: {incident.sentence}{others}; see audit_incidents")
    level: Level = "error" if is_expected else "fatal"
    report_error(error, kind=f"audit.incident/{incident.kind}", request_id="none", level=level)
