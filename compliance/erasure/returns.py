"""People whose data came back after they were erased, and when it is erased again.

The first times at once; who goes on writing is waited for longer and longer, so that a service which cannot stop does
not keep the database busy for ever. Nothing is lost by waiting: the next erasure takes all that came meanwhile.

Document shape (``erasure_returns``)::

    {_id: <subject id as text, behind the tenant where there are tenants>, times: int, recent: int, last_at: date,
     job: request_id, settled_at: date (only where a person with this id registered again)}

``times`` counts for ever, ``recent`` while data keeps coming back.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from compliance.datamap.subject import SubjectId, to_text
from compliance.jobs.job import Prefix, RequestId, State
from compliance.jobs.ledger import JOBS
from compliance.mongo import Databases, Document, Session

RETURNS = "erasure_returns"
AT_ONCE = 3  # erasures without a pause
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
QUIET = timedelta(days=1)  # without a return, and the first ones are carried out at once again
MOST_DOUBLINGS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """Somebody who was erased, and stands in documents again.

    Attributes:
        tenant: Whose data it is, where several organisations share the database.
        earlier: The request that erased the person last.
        erased_at: When that was completed.
        collections: Where data was seen.
    """

    subject_id: SubjectId
    tenant: Any = None
    earlier: str
    erased_at: datetime
    collections: tuple[str, ...]

    @property
    def person(self) -> str:
        """Who it is, among all organisations."""
        return person_of(self.subject_id, self.tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """An erasure that is due because data came back.

    Attributes:
        times: How often it did, this time included.
        pause: How long the erasure waits.
    """

    request_id: RequestId
    returned: Returned
    times: int
    pause: timedelta


def person_of(subject_id: SubjectId, tenant: Any) -> str:
    """Return the name of a person among all organisations; a space stands in no id."""
    return to_text(subject_id) if tenant is None else f"{to_text(tenant)} {to_text(subject_id)}"


def pause_before(recent: int) -> timedelta:
    """Return how long the erasure waits that is the one with this number since the person's data was quiet."""
    if recent <= AT_ONCE:
        return timedelta()
    doubled: timedelta = FIRST_PAUSE * 2 ** min(recent - AT_ONCE - 1, MOST_DOUBLINGS)
    return min(doubled, LONGEST_PAUSE)


def note_return(databases: Databases, returned: Returned, *, now: datetime, session: Session) -> Again | None:
    """Note in the transaction of *session* that data of a person came back; None where nothing has to be asked for.

    An erasure that nobody has begun will find what came, so no second one is asked for; one that is running may have
    passed there already. Two processes that note the same meet a write conflict, and one of them notes it again.
    """
    collection = databases.compliance[RETURNS]
    stored = collection.find_one({"_id": returned.person}, session=session) or {}
    settled_at = stored.get("settled_at")
    if settled_at is not None and settled_at > returned.erased_at:
        return None
    if _waits(databases, stored, session):
        return None
    is_quiet = "last_at" not in stored or now - stored["last_at"] > QUIET
    times, recent = stored.get("times", 0) + 1, 1 if is_quiet else stored["recent"] + 1
    again = Again(
        request_id=_request_id(returned.person, now), returned=returned, times=times, pause=pause_before(recent)
    )
    changes = {"times": times, "recent": recent, "last_at": now + again.pause, "job": again.request_id}
    collection.update_one({"_id": returned.person}, {"$set": changes}, upsert=True, session=session)
    return again


def settle(databases: Databases, person: str, *, now: datetime, session: Session) -> None:
    """Note that who has this id now registered again: it is asked for no more until the person is erased again."""
    databases.compliance[RETURNS].update_one({"_id": person}, {"$set": {"settled_at": now}}, session=session)


def _waits(databases: Databases, stored: Document, session: Session) -> bool:
    query = {"_id": stored.get("job"), "state": State.QUEUED.value}
    return "job" in stored and databases.compliance[JOBS].find_one(query, {"_id": 1}, session=session) is not None


def _request_id(person: str, now: datetime) -> RequestId:
    """Return an id by the moment: a number could come twice where our own database was restored from a backup."""
    digest = hashlib.sha256(person.encode()).hexdigest()[:24]
    return RequestId(f"{Prefix.RETURNED}{digest}-{round(now.timestamp() * 1000)}")
