"""The ledger of jobs in ``<app>_compliance.jobs``: every change of state is a compare-and-swap.

Document shape (``jobs``)::

    {_id: request_id, kind: str, payload: object, payload_hash: str, origin: str, state: str, attempts: int,
     takeovers: int, fence: int,
     lease: {owner: str, until: date} | null, run_at: date | null, published_at: date | null, checkpoint: object,
     result: object | null,
     error: {code: str, message: str} | null, created_at: date, updated_at: date, finished_at: date | null,
     refused: true}                       only where it is no job, but the note of a message that was refused

Leases and delays use the clock of the server (``$$NOW``), so that a worker with a wrong clock does no harm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from compliance.errors import LeaseLost, RequestConflict, StoreUnavailable, UnknownName
from compliance.jobs.job import FINAL, Job, Payload, RequestId, State, from_document, payload_hash
from compliance.mongo import Databases, Document, Session, driver_errors

JOBS = "jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that *owner* may work on until its lease ends or a successor raises the fence."""

    job: Job
    owner: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The jobs of one application, or another collection of work with the same leases."""

    databases: Databases
    collection: str = JOBS

    @property
    def jobs(self) -> Collection[Document]:
        """The collection itself."""
        return self.databases.compliance[self.collection]

    def record(
        self,
        request_id: RequestId,
        *,
        kind: str,
        payload: Payload,
        origin: str,
        now: datetime,
        session: Session | None = None,
    ) -> Job:
        """Make the job of *request_id* durable and return it; the same request twice is one job.

        Args:
            request_id: The idempotency key.
            kind: The kind of work.
            payload: Validated; ids only.
            origin: Where it came from: ``celery``, ``cli``, ``watcher`` or ``schedule``.
            now: When it was received.
            session: The transaction to record it in, if any.

        Raises:
            RequestConflict: When the request id came before with another kind or payload.
        """
        document = new_document(request_id, kind=kind, payload=payload, origin=origin, now=now)
        with driver_errors(session):
            try:
                stored = self.jobs.find_one_and_update(
                    {"_id": request_id},
                    {"$setOnInsert": document},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                    session=session,
                )
            except DuplicateKeyError:  # two upserts of one id at once: the other one won
                stored = self.jobs.find_one({"_id": request_id}, session=session)
            if stored is not None and stored.get("refused"):  # no job, the note of a message that was wrong
                note = {"_id": request_id, "refused": True}
                stored = self.jobs.find_one_and_replace(
                    note, document, return_document=ReturnDocument.AFTER, session=session
                )
        if stored is None:
            raise StoreUnavailable("the ledger lost a job while it was recorded; try again")
        if stored["payload_hash"] != document["payload_hash"] or stored["kind"] != kind:
            raise RequestConflict(
                f"request_id {request_id!r} was used before for another {stored['kind']} request; use a new one"
            )
        return from_document(stored)

    def claim(self, request_id: RequestId, *, owner: str, lease: timedelta) -> Claim | None:
        """Take the job if it is due and nobody works on it; None otherwise."""
        with driver_errors():
            stored = self.jobs.find_one_and_update(
                {"_id": request_id, "$expr": _is_claimable()},
                [
                    {
                        "$set": {
                            "state": State.RUNNING.value,
                            "lease": {"owner": owner, "until": _after(lease)},
                            "fence": {"$add": ["$fence", 1]},
                            "attempts": {"$add": ["$attempts", 1]},
                            "takeovers": {"$add": ["$takeovers", {"$cond": [_was_abandoned(), 1, 0]}]},
                            "published_at": None,
                            "updated_at": "$$NOW",
                        }
                    }
                ],
                return_document=ReturnDocument.AFTER,
            )
        return Claim(job=from_document(stored), owner=owner) if stored else None

    def renew(self, claim: Claim, *, lease: timedelta) -> bool:
        """Move the end of the lease; False when a successor has the job."""
        with driver_errors():
            renewed = self.jobs.update_one(_held_by(claim), [{"$set": {"lease.until": _after(lease)}}])
        return renewed.matched_count == 1

    def advance(self, claim: Claim, changes: Mapping[str, Any], *, session: Session) -> None:
        """Write *changes* of the job in the transaction of *session*; this is the fence of every effect.

        Raises:
            LeaseLost: When a successor has the job; the transaction commits nothing.
        """
        updated = self.jobs.update_one(
            _held_by(claim),
            {"$set": {"takeovers": 0, **changes}, "$currentDate": {"updated_at": True}},
            session=session,
        )
        if updated.matched_count != 1:
            raise LeaseLost(f"job {claim.job.request_id} was taken over; nothing was committed")

    def hand_back(self, claim: Claim, *, delay: timedelta, error: Mapping[str, str] | None = None) -> None:
        """Give the lease back, for anyone to go on after *delay*; a successor that has it already is left alone."""
        with driver_errors():
            self.jobs.update_one(
                _held_by(claim),
                [
                    {
                        "$set": {
                            "state": State.QUEUED.value,
                            "lease": None,
                            "run_at": _after(delay),
                            "error": dict(error) if error else None,
                            "updated_at": "$$NOW",
                        }
                    }
                ],
            )

    def find(self, request_id: str) -> Job | None:
        """Return the job, or None."""
        with driver_errors():
            stored = self.jobs.find_one({"_id": request_id})
        return from_document(stored) if stored else None

    def take_due(self, *, limit: int, again_after: timedelta) -> list[Job]:
        """Return up to *limit* jobs that could run and that nobody works on, and note that they are being published.

        A job that was published less than *again_after* ago and is still waiting is not returned: its message is on
        the way, and a busy queue must not fill with repeats.
        """
        # For a job whose worker vanished the message may be lost with it, so it is rung for more often.
        pause = {"$cond": [_was_abandoned(), _milliseconds(again_after / 6), _milliseconds(again_after)]}
        quiet = {"$lt": ["$published_at", {"$subtract": ["$$NOW", pause]}]}
        query = {
            "state": {"$in": [State.QUEUED.value, State.RUNNING.value]},
            "$expr": {"$and": [_is_claimable(), quiet]},
        }
        with driver_errors():
            due = [from_document(stored) for stored in self.jobs.find(query).sort("run_at", ASCENDING).limit(limit)]
            if due:
                ids = [job.request_id for job in due]
                self.jobs.update_many({"_id": {"$in": ids}}, [{"$set": {"published_at": "$$NOW"}}])
        return due

    def list(self, *, state: State | None = None, limit: int) -> Iterator[Job]:
        """Yield the newest jobs, of one state if given."""
        query = {"state": state.value} if state else {}
        with driver_errors():
            for stored in self.jobs.find(query).sort("created_at", DESCENDING).limit(limit):
                yield from_document(stored)

    def retry(self, request_id: RequestId, *, session: Session) -> None:
        """Queue a parked job again, in the transaction of *session*; it starts with a clean count of attempts.

        Raises:
            UnknownName: When it is not parked.
        """
        changed = self.jobs.update_one(
            {"_id": request_id, "state": State.PARKED.value},
            [
                {
                    "$set": {
                        "state": State.QUEUED.value,
                        "attempts": 0,
                        "takeovers": 0,
                        "run_at": None,
                        "finished_at": None,
                        "updated_at": "$$NOW",
                    }
                }
            ],
            session=session,
        )
        if changed.matched_count != 1:
            raise UnknownName(f"there is no parked job {request_id!r}; see `compliance jobs list --state parked`")


def new_document(request_id: RequestId, *, kind: str, payload: Payload, origin: str, now: datetime) -> Document:
    """Return a queued job as it is stored."""
    return {
        "_id": request_id,
        "kind": kind,
        "payload": payload,
        "payload_hash": payload_hash(payload),
        "origin": origin,
        "state": State.QUEUED.value,
        "attempts": 0,
        "takeovers": 0,
        "fence": 0,
        "lease": None,
        "run_at": None,
        "published_at": None,
        "checkpoint": {},
        "result": None,
        "error": None,
        "created_at": now,
        "updated_at": now,
        "finished_at": None,
    }


def finished(state: State, *, now: datetime, **changes: Any) -> dict[str, Any]:
    """Return the changes that end a job in *state*."""
    if state not in FINAL:
        raise ValueError(f"{state} is no final state")
    return {"state": state.value, "lease": None, "finished_at": now, **changes}


def _after(delay: timedelta) -> Document:
    return {"$add": ["$$NOW", _milliseconds(delay)]}


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)


def _is_claimable() -> Document:
    waiting = {"$and": [{"$eq": ["$state", State.QUEUED.value]}, {"$lte": ["$run_at", "$$NOW"]}]}
    abandoned = {"$and": [{"$eq": ["$state", State.RUNNING.value]}, {"$lt": ["$lease.until", "$$NOW"]}]}
    return {"$or": [waiting, abandoned]}


def _was_abandoned() -> Document:
    return {"$eq": ["$state", State.RUNNING.value]}


def _held_by(claim: Claim) -> Document:
    return {
        "_id": claim.job.request_id,
        "state": State.RUNNING.value,
        "lease.owner": claim.owner,
        "fence": claim.job.fence,
    }
