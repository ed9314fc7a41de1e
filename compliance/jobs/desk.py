"""What people do with jobs: look, try again, cancel, park, count."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import DESCENDING

from compliance.errors import UnknownName
from compliance.jobs.document import finished, from_document
from compliance.jobs.job import Ask, Job, RequestId, State
from compliance.jobs.ledger import Ledger
from compliance.mongo import Session, driver_errors

UNFINISHED = (State.QUEUED, State.RUNNING, State.PARKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many jobs of a kind are in a state.

    Attributes:
        oldest: When the first of them was created.
        deadline: The earliest deadline among them.
    """

    kind: str
    state: str
    jobs: int
    oldest: datetime
    deadline: datetime | None


@dataclass(frozen=True, slots=True)
class Desk:
    """The ledger as people see it."""

    ledger: Ledger

    def newest(self, *, state: State | None = None, kind: str | None = None, limit: int) -> Iterator[Job]:
        """Yield the newest jobs, of one state and of one kind if given."""
        asked = {"state": state.value if state else None, "kind": kind}
        query = {name: value for name, value in asked.items() if value is not None}
        with driver_errors():
            for stored in self.ledger.jobs.find(query).sort("created_at", DESCENDING).limit(limit):
                yield from_document(stored)

    def stats(self, *, within: timedelta) -> list[Count]:
        """Count jobs by kind and state: all that are not finished, and those that were finished *within* this time."""
        count = {
            "jobs": {"$sum": 1},
            "oldest": {"$min": "$created_at"},
            "deadline": {"$min": "$deadline"},
        }
        group = {"$group": {"_id": {"kind": "$kind", "state": "$state"}, **count}}
        with driver_errors():
            since = self.ledger.databases.server_time() - within
            matches: list[dict[str, Any]] = [{"state": state.value} for state in UNFINISHED]
            matches.append({"finished_at": {"$gte": since}, "state": {"$ne": State.PARKED.value}})
            found = [row for match in matches for row in self.ledger.jobs.aggregate([{"$match": match}, group])]
        counts = [Count(**row.pop("_id"), **row) for row in found]
        return sorted(counts, key=lambda count: (count.kind, count.state))

    def retry(self, request_id: RequestId, *, session: Session) -> None:
        """Queue a parked job again, in the transaction of *session*; attempts and rings count from nought.

        Raises:
            UnknownName: When it is not parked.
        """
        queued = {
            "state": State.QUEUED.value,
            "attempts": 0,
            "takeovers": 0,
            "run_at": None,
            "ring_at": None,
            "rings": 0,
            "asked": None,
            "error": None,
            "finished_at": None,
            "updated_at": "$$NOW",
        }
        changed = self.ledger.jobs.update_one(
            {"_id": request_id, "state": State.PARKED.value}, [{"$set": queued}], session=session
        )
        if changed.matched_count != 1:
            raise UnknownName(f"there is no parked job {request_id!r}; see `compliance jobs list --state parked`")

    def ask(self, request_id: RequestId, ask: Ask, *, now: datetime, session: Session) -> bool:
        """Cancel or park a job, in the transaction of *session*.

        A waiting job ends at once; a running one is asked to, and does so at its next batch.

        Returns:
            Whether it ended at once.

        Raises:
            UnknownName: When there is no such job, it is finished, or it is parked already.
        """
        waiting = [State.QUEUED] if ask is Ask.PARK else [State.QUEUED, State.PARKED]
        ended = self.ledger.jobs.update_one(
            {"_id": request_id, "state": {"$in": [state.value for state in waiting]}},
            {"$set": finished(ask.leads_to, now=now, asked=None), "$currentDate": {"updated_at": True}},
            session=session,
        )
        if ended.matched_count == 1:
            return True
        heard = self.ledger.jobs.update_one(
            {"_id": request_id, "state": State.RUNNING.value}, {"$set": {"asked": ask.value}}, session=session
        )
        if heard.matched_count == 1:
            return False
        parked = {"_id": request_id, "state": State.PARKED.value}
        if self.ledger.jobs.find_one(parked, {"_id": 1}, session=session) is not None:
            raise UnknownName(f"job {request_id!r} is parked already; `compliance jobs retry` lets it go on")
        raise UnknownName(f"there is no unfinished job {request_id!r} to {ask.value}; see `compliance jobs list`")
