"""The ledger of jobs as workers use it: record, claim, renew, commit, hand back, ring again.

Every change of state is a compare-and-swap. Leases and delays use the clock of the server (``$$NOW``), so that a
worker with a wrong clock does no harm. ``compliance.jobs.desk`` has what people do with jobs.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pymongo
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, ExecutionTimeout, NetworkTimeout

from compliance.errors import LeaseLost, RequestConflict, StoreUnavailable
from compliance.jobs.document import from_document, payload_hash
from compliance.jobs.job import Ask, Job, Payload, RequestId, State
from compliance.mongo import Databases, Document, Session, driver_errors

JOBS = "jobs"
# The transaction of a worker that was killed keeps its documents until the server gives it up (up to 90 s by default);
# nobody else shall stand still for that long.
CLAIM_LIMIT = timedelta(seconds=10)
LONGEST_SILENCE = timedelta(minutes=5)  # between two rings for one job: a broker that lost its data tells nobody
MOST_DOUBLINGS = 10
NOTE_LIMIT = timedelta(seconds=2)


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

    def record(self, document: Document, *, session: Session | None = None) -> Job:
        """Make a job durable and return it; the same request twice is one job.

        Args:
            document: The job as ``new_document`` makes it; of a repeated request, that of the first one stands.
            session: The transaction to record it in, if any.

        Raises:
            RequestConflict: When its request id came before with another kind or payload.
        """
        request_id, kind = document["_id"], document["kind"]
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
        """Take the job if it is due, nobody works on it and nobody has its locks; None otherwise.

        Raises:
            StoreUnavailable: Also when it is part of a transaction that does not end.
        """
        with driver_errors(), pymongo.timeout(CLAIM_LIMIT.total_seconds()):
            try:
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
                                "ring_at": None,
                                "rings": 0,
                                "updated_at": "$$NOW",
                            }
                        }
                    ],
                    return_document=ReturnDocument.AFTER,
                )
            except DuplicateKeyError:  # another running job has one of its locks, and rings for it when it ends
                return None
        return Claim(job=from_document(stored), owner=owner) if stored else None

    def most_urgent(self, kind: str, *, limit: int, is_free: bool = False) -> list[RequestId]:
        """Return the waiting jobs of *kind* that are due: highest priority first, then earliest deadline.

        Args:
            kind: The kind of work.
            limit: How many at most.
            is_free: Leave out those that need a lock which a running job has.
        """
        query = {"kind": kind, "state": State.QUEUED.value, "$expr": _is_due()}
        order = [("priority", DESCENDING), ("deadline", ASCENDING)]
        with driver_errors():
            if is_free:
                held = {"state": State.RUNNING.value, "locks": {"$exists": True}}
                query["locks"] = {"$nin": self.jobs.distinct("locks", held)}
            return [RequestId(found["_id"]) for found in self.jobs.find(query, {"_id": 1}).sort(order).limit(limit)]

    def renew(self, claim: Claim, *, lease: timedelta) -> Ask | None:
        """Move the end of the lease; return what a person asked of the job meanwhile, if anything.

        Raises:
            LeaseLost: When a successor has the job.
        """
        with driver_errors():
            renewed = self.jobs.find_one_and_update(
                _held_by(claim), [{"$set": {"lease.until": _after(lease)}}], projection={"asked": 1}
            )
        if renewed is None:
            raise _lost(claim)
        return Ask(renewed["asked"]) if renewed.get("asked") else None

    def insert(self, document: Document, *, session: Session) -> None:
        """Insert a job in the transaction of *session*; one that is there, or whose locks are taken, is an error."""
        self.jobs.insert_one(document, session=session)

    def advance(self, claim: Claim, changes: Mapping[str, Any], *, session: Session, heard: Ask | None = None) -> None:
        """Write *changes* of the job in the transaction of *session*; this is the fence of every effect.

        Args:
            claim: What the caller holds.
            changes: Fields of the job.
            session: The transaction.
            heard: What a person asked of the job, where the caller does that; an effect never commits against it.

        Raises:
            LeaseLost: When a successor has the job, or a person asked for something that the caller does not know yet;
                the transaction commits nothing.
        """
        updated = self.jobs.update_one(
            {**_held_by(claim), "asked": heard.value if heard else None},
            {"$set": {"takeovers": 0, **changes}, "$currentDate": {"updated_at": True}},
            session=session,
        )
        if updated.matched_count != 1:
            raise _lost(claim)

    def holds(self, claim: Claim) -> bool:
        """Whether nobody else has taken the job since."""
        with driver_errors():
            return self.jobs.find_one(_held_by(claim), {"_id": 1}) is not None

    def asked(self, claim: Claim) -> Ask | None:
        """Return what a person asked of the job that is still held by *claim*."""
        with driver_errors():
            held = self.jobs.find_one(_held_by(claim), {"asked": 1})
        return Ask(held["asked"]) if held and held.get("asked") else None

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
                            "ring_at": _after(delay),
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

    def find_equal(self, request_id: RequestId, *, kind: str, payload: Payload) -> Job | None:
        """Return the job of *request_id* where it is of this *kind* and *payload*; the note of a refusal is no job."""
        query = {"_id": request_id, "kind": kind, "payload_hash": payload_hash(payload), "refused": {"$exists": False}}
        with driver_errors():
            stored = self.jobs.find_one(query)
        return from_document(stored) if stored else None

    def waiting_for(self, locks: tuple[str, ...], *, limit: int) -> list[Job]:
        """Return waiting jobs that need one of *locks*."""
        query = {"state": State.QUEUED.value, "locks": {"$in": list(locks)}}
        with driver_errors():
            return [from_document(stored) for stored in self.jobs.find(query).limit(limit)]

    def take_due(self, *, limit: int, again_after: timedelta) -> list[Job]:
        """Return up to *limit* jobs that could run and that nobody works on, and note that they are being published.

        A job that was published less than *again_after* ago and is still waiting is not returned: its message is on
        the way, and a busy queue must not fill with repeats. The pause doubles with every ring, up to five minutes. A
        job whose worker vanished is rung for six times as often: its message may be lost with it. What cannot be noted
        in time is rung for once more.
        """
        with driver_errors():
            now = self.databases.server_time()
            # By index, so that those that are quiet cost nothing however many they are; null comes before any time.
            is_quiet_no_more = {"ring_at": {"$not": {"$gt": now}}}
            abandoned = self._ring(
                {"state": State.RUNNING.value, "lease.until": {"$lt": now}, **is_quiet_no_more},
                ("lease.until", ASCENDING),
                limit,
                again_after / 6,
            )
            waiting = self._ring(
                {"state": State.QUEUED.value, **is_quiet_no_more},
                ("ring_at", ASCENDING),
                limit - len(abandoned),
                again_after,
            )
        due = abandoned + waiting
        return sorted(due, key=lambda job: (-job.terms.priority, job.created_at))

    def _ring(self, query: Document, order: tuple[str, int], limit: int, pause: timedelta) -> list[Job]:
        due = [from_document(stored) for stored in self.jobs.find(query).sort([order]).limit(limit)] if limit else []
        if due:
            ids = [job.request_id for job in due]
            with suppress(ExecutionTimeout, NetworkTimeout), pymongo.timeout(NOTE_LIMIT.total_seconds()):
                rung = {"ring_at": {"$add": ["$$NOW", _silence(pause)]}, "rings": {"$add": ["$rings", 1]}}
                self.jobs.update_many({"_id": {"$in": ids}}, [{"$set": rung}])
        return due


def _after(delay: timedelta) -> Document:
    return {"$add": ["$$NOW", _milliseconds(delay)]}


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)


def _silence(pause: timedelta) -> Document:
    doubled = {"$multiply": [_milliseconds(pause), {"$pow": [2, {"$min": ["$rings", MOST_DOUBLINGS]}]}]}
    return {"$min": [doubled, _milliseconds(LONGEST_SILENCE)]}


def _is_due() -> Document:
    return {"$lte": ["$run_at", "$$NOW"]}  # null is less than any date


def _is_claimable() -> Document:
    waiting = {"$and": [{"$eq": ["$state", State.QUEUED.value]}, _is_due()]}
    abandoned = {"$and": [_was_abandoned(), {"$lt": ["$lease.until", "$$NOW"]}]}
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


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"job {claim.job.request_id} was taken over; nothing was committed")
