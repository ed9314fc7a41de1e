"""The request of a person to be erased, as an officer follows it: a state machine in ``erasure_requests``.

Document shape (``erasure_requests``)::

    {_id: request_id, subject_id: ObjectId | str | UUID, state: str, version: int, dry_run: bool, map_digest: str,
     normalised_id: str (only where subject_id is a pseudonym),
     plan: [{collection, action, documents}], affected: {collection: {delete|update|pull: int}},
     kept: [{collection, fields, ground, why, documents}], received_at: date, due_at: date, updated_at: date,
     accepted_at: date (once accepted), completed_at: date | null,
     certificate: str (canonical JSON of what the certificate states; when completed),
     grace_until: date (only where there is a time of grace), replan: true (only while a person asks for a new plan),
     extension: {reason: str, at: date} (only where the answer may come later),
     tenant: Any (only where several organisations share the database),
     earlier: request_id (only where another request had erased the person before),
     holds: [id] (of the legal holds on parts that the plan reckons with),
     held: [{hold: id, case: str, collection: str | null, field: str | null, until: date | null}] (because of which
         something stays, or the request was rejected), left_out: [collection] (in which it stays),
     rest: request_id (of the job that goes on where a hold ended), rest_of: request_id (the other way round),
     residual: {collection: int} (what the second look found),
     unread: [{collection, why}] (what the second look did not read; when completed)}

``version`` grows with every move, and each move compares it: of two at once, one is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING

from compliance.datamap.subject import SubjectId
from compliance.erasure.stage import COMPLETE, NEXT, REQUESTS, WAITING_FOR_HOLDS, Stage, due_date, may_become
from compliance.errors import IntegrityError, UnknownName
from compliance.mongo import Databases, Document, Session, driver_errors


@dataclass(frozen=True, slots=True)
class Requests:
    """The erasure requests of one application."""

    databases: Databases

    def find(self, request_id: str, *, session: Session | None = None) -> Document | None:
        """Return the request, or None."""
        with driver_errors(session):
            return self.databases.compliance[REQUESTS].find_one({"_id": request_id}, session=session)

    def get(self, request_id: str, *, session: Session | None = None) -> Document:
        """Return the request.

        Raises:
            UnknownName: When there is none.
        """
        found = self.find(request_id, session=session)
        if found is None:
            raise UnknownName(f"there is no erasure request {request_id!r}; see `compliance erasure list`")
        return found

    def listed(self, *, state: Stage | None = None, overdue: bool = False, limit: int) -> list[Document]:
        """Return the newest requests; of those that are *overdue*, by the clock of the server, the first due first."""
        query: Document = {} if state is None else {"state": state.value}
        order = ("received_at", DESCENDING)
        with driver_errors():
            if overdue:
                late = {"due_at": {"$lt": self.databases.server_time()}, "dry_run": {"$ne": True}}
                query = {"$and": [query, {"state": {"$in": [stage.value for stage in NEXT]}}, late]}
                order = ("due_at", ASCENDING)
            return list(self.databases.compliance[REQUESTS].find(query, sort=[order], limit=limit))

    def completed_for(self, *names: SubjectId) -> Document | None:
        """Return the last completed erasure of the person with these *names*, or None."""
        query = {"subject_id": {"$in": list(names)}, "state": {"$in": [stage.value for stage in COMPLETE]}}
        with driver_errors():
            return self.databases.compliance[REQUESTS].find_one(query, sort=[("completed_at", DESCENDING)])

    def pseudonyms_of(self, subject_id: SubjectId) -> frozenset[str]:
        """Return the pseudonyms by which to look for a person whose root key is personal."""
        return self._pseudonyms({"subject_id": subject_id}) or frozenset({str(subject_id)})

    def erased(self, subject_id: SubjectId | None = None) -> list[Document]:
        """Return the last completed request of each person, or of one: who it is, and what a legal hold left out."""
        query: Document = {"state": {"$in": [stage.value for stage in COMPLETE]}}
        query |= {} if subject_id is None else {"subject_id": subject_id}
        wanted = {"subject_id": 1, "normalised_id": 1, "left_out": 1}
        with driver_errors():
            found = self.databases.compliance[REQUESTS].find(query, wanted, sort={"completed_at": ASCENDING})
            return list({request["subject_id"]: request for request in found}.values())

    def receive(
        self,
        request_id: str,
        subject_id: SubjectId,
        *,
        dry_run: bool,
        map_digest: str,
        now: datetime,
        session: Session,
        also: Mapping[str, Any],
    ) -> None:
        """Insert the request; its deadline runs from *now*.

        *also* are fields of the document: ``normalised_id``, the pseudonym of the form by which addresses are compared,
        so that the person can be found in any letter case when only pseudonyms are left; ``tenant``, ``earlier``,
        ``rest_of``.
        """
        self.databases.compliance[REQUESTS].insert_one(
            {
                "_id": request_id,
                "subject_id": subject_id,
                **{name: value for name, value in also.items() if value is not None},
                "state": Stage.RECEIVED.value,
                "version": 1,
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
        if self._move(request_id, target, changes, now=now, session=session) is None:
            raise IntegrityError(f"erasure request {request_id} cannot become {target.value} from where it stands")

    def try_move(self, request_id: str, target: Stage, *, now: datetime, session: Session) -> Document | None:
        """Move the request to *target* and return it as it was; None where there is none, or its stage forbids it."""
        return self._move(request_id, target, {}, now=now, session=session)

    def set_due(self, found: Document, due: datetime, *, reason: str, now: datetime, session: Session) -> None:
        """Extend the due date of the request *found* as it stands, with the code of the *reason*.

        Raises:
            IntegrityError: When it moved meanwhile.
        """
        changes = {"due_at": due, "extension": {"reason": reason, "at": now}, "updated_at": now}
        extended = self.databases.compliance[REQUESTS].update_one(
            {"_id": found["_id"], "state": found["state"], "version": found.get("version")},
            {"$set": changes, "$inc": {"version": 1}},
            session=session,
        )
        if extended.matched_count != 1:
            raise IntegrityError(f"erasure request {found['_id']} moved meanwhile; look at it and try again")

    def held_by(self, hold_id: str, *, limit: int, session: Session | None = None) -> list[Document]:
        """Return requests that the hold keeps back, and that nobody asked for again."""
        waiting = {"state": {"$in": [stage.value for stage in WAITING_FOR_HOLDS]}, "rest": {"$exists": False}}
        query = {"held.hold": hold_id, "dry_run": False, **waiting}
        with driver_errors(session):
            return list(self.databases.compliance[REQUESTS].find(query, session=session, limit=limit))

    def continue_by(self, request_id: str, job_id: str, *, session: Session) -> bool:
        """Note the job that goes on with a request that was held back; False where there is one already."""
        noted = self.databases.compliance[REQUESTS].update_one(
            {"_id": request_id, "rest": {"$exists": False}}, {"$set": {"rest": job_id}}, session=session
        )
        return noted.matched_count == 1

    def continued_by(self, job_id: str, *names: SubjectId, session: Session) -> str | None:
        """Return the request of the person with these *names* that goes on by the job *job_id*."""
        query = {"subject_id": {"$in": list(names)}, "rest": job_id}
        found = self.databases.compliance[REQUESTS].find_one(query, {"_id": 1}, session=session)
        return str(found["_id"]) if found else None

    def ask_replan(self, request_id: str, *, session: Session) -> None:
        """Note that a person wants a new plan before anything else is done."""
        self.databases.compliance[REQUESTS].update_one({"_id": request_id}, {"$set": {"replan": True}}, session=session)

    def _pseudonyms(self, query: Document) -> frozenset[str]:
        with driver_errors():
            found = self.databases.compliance[REQUESTS].find(query, {"subject_id": 1, "normalised_id": 1})
            return frozenset(str(item.get("normalised_id", item["subject_id"])) for item in found)

    def _move(
        self, request_id: str, target: Stage, changes: Mapping[str, Any], *, now: datetime, session: Session
    ) -> Document | None:
        requests = self.databases.compliance[REQUESTS]
        found = requests.find_one({"_id": request_id}, session=session)
        if found is None or not may_become(Stage(found["state"]), target):
            return None
        moved = requests.update_one(
            {"_id": request_id, "state": found["state"], "version": found.get("version")},
            {"$set": {"state": target.value, "updated_at": now, **changes}, "$inc": {"version": 1}},
            session=session,
        )
        return found if moved.matched_count == 1 else None
