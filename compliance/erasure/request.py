"""The request of a person to be erased, as an officer follows it: a state machine in ``erasure_requests``.

Document shape (``erasure_requests``)::

    {_id: request_id, subject_id: ObjectId | str | UUID, state: str, dry_run: bool, map_digest: str,
     plan: [{collection, action, documents}], affected: {collection: {delete|update|pull: int}},
     kept: [{collection, fields, ground, why, documents}], received_at: date, due_at: date, updated_at: date,
     completed_at: date | null}
"""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from compliance.datamap.subject import SubjectId
from compliance.errors import IntegrityError
from compliance.mongo import Databases, Document, Session, driver_errors

REQUESTS = "erasure_requests"


class Stage(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    PLANNED = "planned"
    EXECUTING = "executing"
    COMPLETED = "completed"
    COMPLETED_WITH_RETENTION = "completed_with_retention"
    RESIDUAL_FOUND = "residual_found"
    REJECTED = "rejected"


COMPLETE = (Stage.COMPLETED, Stage.COMPLETED_WITH_RETENTION)
NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.RECEIVED: (Stage.PLANNED, Stage.REJECTED),
    Stage.PLANNED: (Stage.EXECUTING, Stage.REJECTED),
    Stage.EXECUTING: (Stage.EXECUTING, Stage.RESIDUAL_FOUND, Stage.REJECTED, *COMPLETE),
    Stage.RESIDUAL_FOUND: (Stage.EXECUTING,),
}


def due_date(received: datetime) -> datetime:
    """Return the last day to answer: one calendar month later, or the last day of a shorter month.

    Source: GDPR Art. 12(3).
    """
    year, month = received.year + received.month // 12, received.month % 12 + 1
    day = min(received.day, calendar.monthrange(year, month)[1])
    return received.replace(year=year, month=month, day=day)


@dataclass(frozen=True, slots=True)
class Requests:
    """The erasure requests of one application."""

    databases: Databases

    def find(self, request_id: str) -> Document | None:
        """Return the request, or None."""
        with driver_errors():
            return self.databases.compliance[REQUESTS].find_one({"_id": request_id})

    def completed_for(self, subject_id: SubjectId) -> Document | None:
        """Return a completed erasure of this person, or None."""
        query = {"subject_id": subject_id, "state": {"$in": [stage.value for stage in COMPLETE]}}
        with driver_errors():
            return self.databases.compliance[REQUESTS].find_one(query)

    def receive(
        self,
        request_id: str,
        subject_id: SubjectId,
        *,
        dry_run: bool,
        map_digest: str,
        now: datetime,
        session: Session,
    ) -> None:
        """Insert the request; its deadline runs from *now*."""
        self.databases.compliance[REQUESTS].insert_one(
            {
                "_id": request_id,
                "subject_id": subject_id,
                "state": Stage.RECEIVED.value,
                "dry_run": dry_run,
                "map_digest": map_digest,
                "plan": [],
                "affected": {},
                "kept": [],
                "received_at": now,
                "due_at": due_date(now),
                "updated_at": now,
                "completed_at": None,
            },
            session=session,
        )

    def move(
        self, request_id: str, target: Stage, changes: Mapping[str, Any], *, now: datetime, session: Session
    ) -> None:
        """Move the request to *target* if its present stage allows it.

        Raises:
            IntegrityError: When it does not.
        """
        sources = [stage.value for stage, targets in NEXT.items() if target in targets]
        moved = self.databases.compliance[REQUESTS].update_one(
            {"_id": request_id, "state": {"$in": sources}},
            {"$set": {"state": target.value, "updated_at": now, **changes}},
            session=session,
        )
        if moved.matched_count != 1:
            raise IntegrityError(f"erasure request {request_id} cannot become {target.value} from where it stands")
