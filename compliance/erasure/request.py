"""The request of a person to be erased, as an officer follows it: a state machine in ``erasure_requests``.

Document shape (``erasure_requests``)::

    {_id: request_id, subject_id: ObjectId | str | UUID, state: str, dry_run: bool, map_digest: str,
     normalised_id: str (only where subject_id is a pseudonym),
     plan: [{collection, action, documents}], affected: {collection: {delete|update|pull: int}},
     kept: [{collection, fields, ground, why, documents}], received_at: date, due_at: date, updated_at: date,
     completed_at: date | null, certificate: str (canonical JSON of what the certificate states; when completed)}
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

    def completed_for(self, *names: SubjectId) -> Document | None:
        """Return a completed erasure of the person with these *names*, or None."""
        query = {"subject_id": {"$in": list(names)}, "state": {"$in": [stage.value for stage in COMPLETE]}}
        with driver_errors():
            return self.databases.compliance[REQUESTS].find_one(query)

    def pseudonyms_of(self, subject_id: SubjectId) -> frozenset[str]:
        """Return the pseudonyms by which to look for a person whose root key is personal."""
        return self._pseudonyms({"subject_id": subject_id}) or frozenset({str(subject_id)})

    def pseudonyms_of_erased(self) -> frozenset[str]:
        """Return the pseudonyms by which to look for people who were erased, where their root key is personal."""
        return self._pseudonyms({"state": {"$in": [stage.value for stage in COMPLETE]}})

    def receive(
        self,
        request_id: str,
        subject_id: SubjectId,
        *,
        dry_run: bool,
        map_digest: str,
        now: datetime,
        session: Session,
        normalised_id: str | None = None,
    ) -> None:
        """Insert the request; its deadline runs from *now*.

        *normalised_id* is the pseudonym of the form by which addresses are compared, so that the person can be found
        in any letter case when only pseudonyms are left.
        """
        also = {} if normalised_id is None else {"normalised_id": normalised_id}
        self.databases.compliance[REQUESTS].insert_one(
            {
                "_id": request_id,
                "subject_id": subject_id,
                **also,
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

    def _pseudonyms(self, query: Document) -> frozenset[str]:
        with driver_errors():
            found = self.databases.compliance[REQUESTS].find(query, {"subject_id": 1, "normalised_id": 1})
            return frozenset(str(item.get("normalised_id", item["subject_id"])) for item in found)

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
