"""The request of a person to be erased, as an officer follows it: a state machine in ``erasure_requests``.

Document shape (``erasure_requests``)::

    {_id: request_id, subject_id: ObjectId | str | UUID, state: str, dry_run: bool, map_digest: str,
     plan: [{collection, action, documents}], affected: {collection: {delete|update|pull: int}},
     kept: [{collection, fields, ground, why, documents}], received_at: date, due_at: date, updated_at: date,
     completed_at: date | null}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.datamap.subject import SubjectId
from compliance.erasure.stage import COMPLETE, NEXT, REQUESTS, Stage, due_date
from compliance.errors import IntegrityError
from compliance.mongo import Databases, Document, Session, driver_errors


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
        if not self._move(request_id, target, changes, now=now, session=session):
            raise IntegrityError(f"erasure request {request_id} cannot become {target.value} from where it stands")

    def withdraw(self, request_id: str, *, now: datetime, session: Session) -> bool:
        """Withdraw a request that is not answered yet; False where there is none, or it is."""
        return self._move(request_id, Stage.WITHDRAWN, {}, now=now, session=session)

    def _move(
        self, request_id: str, target: Stage, changes: Mapping[str, Any], *, now: datetime, session: Session
    ) -> bool:
        sources = [stage.value for stage, targets in NEXT.items() if target in targets]
        moved = self.databases.compliance[REQUESTS].update_one(
            {"_id": request_id, "state": {"$in": sources}},
            {"$set": {"state": target.value, "updated_at": now, **changes}},
            session=session,
        )
        return moved.matched_count == 1
