"""Many small jobs from a foreign service, and whether each of them happened exactly once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from system import System

from compliance.jobs.job import FINAL

QUEUE = "compliance.consent"


@dataclass(frozen=True)
class Consents:
    """Consent updates, each known by its request id."""

    system: System

    def values(self, request_id: str) -> dict[str, Any]:
        people = self.system.seeded.subjects
        return {
            "event_id": f"event-{request_id}",
            "subject_id": str(people[sum(request_id.encode()) % len(people)]),
            "type": "MARKETING",
            "granted": True,
            "occurred_at": "2026-05-01T12:00:00Z",
        }

    def send(self, request_ids: Iterable[str], *, times: int = 1) -> None:
        """Send as a service would that knows nothing but URL, task and queue."""
        service = self.system.service()
        for request_id in request_ids:
            for _ in range(times):
                service.send_task(
                    "compliance.consent.update",
                    kwargs={**self.values(request_id), "request_id": request_id},
                    queue=QUEUE,
                )
        service.close()

    def grant(self, request_id: str, person: int) -> None:
        """Record by the command, which needs no broker."""
        subject = str(self.system.seeded.subjects[person])
        self.system.compliance("consent", "grant", subject, "MARKETING", "--request-id", request_id)

    def states(self, request_ids: Sequence[str]) -> dict[str, str]:
        found = self.system.deployment.admin.compliance["jobs"].find({"_id": {"$in": list(request_ids)}}, {"state": 1})
        return {job["_id"]: job["state"] for job in found}

    def ended(self, request_ids: Sequence[str]) -> int:
        return sum(1 for state in self.states(request_ids).values() if state in FINAL)

    def has_begun(self, request_ids: Sequence[str]) -> bool:
        return self.ended(request_ids) > 0

    def missing(self, request_ids: Sequence[str]) -> list[str]:
        """Those that no worker had recorded before the broker lost them."""
        known = self.states(request_ids)
        return [request_id for request_id in request_ids if request_id not in known]

    def assert_each_happened_once(self, request_ids: Sequence[str]) -> None:
        entries = self.system.deployment.entries(action="consent.granted")
        events = self.system.deployment.admin.compliance["consent_events"].find({}, {"_id": 1})
        once = dict.fromkeys(request_ids, 1)

        assert self.states(request_ids) == dict.fromkeys(request_ids, "done")
        assert Counter(entry["request_id"] for entry in entries) == once
        assert len(list(events)) == len(request_ids)
