"""One job for every slot that is due, however many processes look, however long none did.

Document shape (``schedules``)::

    {_id: "<name> <when>", last_slot: date | null, since: date}
    {_id: <name of a turn>, taken_at: date}

``last_slot`` is the slot that a job was last recorded for, ``since`` the time before which nothing is due: when the
schedule was first seen, or the last slot that passed while it was disabled. A changed expression is another document:
it begins with its next slot, and workers with the old file and with the new one can run side by side.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from compliance.audit.entry import Cause
from compliance.errors import RejectedError
from compliance.jobs.job import Job, Prefix, to_request_id
from compliance.mongo import Databases, Document, Session, driver_errors
from worker.attempt import job_entry
from worker.intake import submit
from worker.refusal import Refusal
from worker.schedule import Schedule
from worker.services import Services
from worker.slots import due_slot
from worker.telemetry import report_error

log = structlog.get_logger(__name__)

SCHEDULES = "schedules"
ORIGIN = "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a schedule stands."""

    last_slot: datetime | None
    since: datetime

    @property
    def after(self) -> datetime:
        """The time after which its next slot lies."""
        return max(self.since, self.last_slot or self.since)


def request_due(schedules: Iterable[Schedule], services: Services) -> list[Job]:
    """Record a job for each schedule with a slot that is due, and return the jobs.

    The time is the server's, so that a worker with a wrong clock asks for nothing too early or too late.
    """
    listed = tuple(schedules)
    standings, now = find_standings(listed, services.databases), services.databases.server_time()
    jobs = []
    for schedule in listed:
        standing = standings.get(schedule.name)
        if standing is None:
            _begin(schedule, services.databases, now=now)
            continue
        slot = due_slot(schedule.when, now=now, after=standing.after)
        if slot is not None:
            jobs.append(_take(schedule, standing, slot, services))
    return [job for job in jobs if job is not None]


def find_standings(schedules: Iterable[Schedule], databases: Databases) -> Mapping[str, Standing]:
    """Return where each of *schedules* stands, by name; those that no sweep has seen yet are left out."""
    names = {_id(schedule): schedule.name for schedule in schedules}
    with driver_errors():
        return {
            names[stored["_id"]]: Standing(last_slot=stored["last_slot"], since=stored["since"])
            for stored in _collection(databases).find({"_id": {"$in": list(names)}})
        }


def take_turn(databases: Databases, name: str, *, every: timedelta) -> bool:
    """Whether nobody took the turn *name* within *every*, by the clock of the server; then it is taken.

    A turn from the future counts for nothing: it was taken by the clock of a server that is primary no more.
    """
    with driver_errors():
        now = databases.server_time()
        try:
            _collection(databases).update_one(
                {"_id": name, "$or": [{"taken_at": {"$lte": now - every}}, {"taken_at": {"$gt": now}}]},
                {"$set": {"taken_at": now}},
                upsert=True,
            )
        except DuplicateKeyError:  # it is there, and taken later than that
            return False
    return True


def slot_request_id(schedule: Schedule, slot: datetime) -> str:
    """Return the request id of the job of *slot*."""
    return f"{Prefix.SCHEDULE}{schedule.name}:{slot.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _begin(schedule: Schedule, databases: Databases, *, now: datetime) -> None:
    """Note a schedule that is new; of two processes at once, the first one counts."""
    with driver_errors():
        _collection(databases).update_one(
            {"_id": _id(schedule)}, {"$setOnInsert": {"last_slot": None, "since": now}}, upsert=True
        )


def _take(schedule: Schedule, standing: Standing, slot: datetime, services: Services) -> Job | None:
    """Move the schedule on to *slot* and record its job in one transaction; None when there is none to record."""
    if not schedule.enabled:
        _move(schedule, standing, {"since": slot}, services.databases)
        return None
    request_id = slot_request_id(schedule, slot)

    def transaction(session: Session) -> Job | None:
        if not _move(schedule, standing, {"last_slot": slot}, services.databases, session=session):
            return None
        return submit(
            schedule.kind, schedule.values, request_id=request_id, origin=ORIGIN, services=services, session=session
        )

    try:
        job = services.databases.transact(transaction)
    except RejectedError as error:  # the same at every sweep until somebody corrects the file: once per slot is enough
        _refuse(schedule, standing, slot, error, services)
        return None
    if job is not None:
        log.info("schedule.requested", request_id=request_id)
    return job


def _refuse(schedule: Schedule, standing: Standing, slot: datetime, error: RejectedError, services: Services) -> None:
    """Move the schedule on to *slot*, for which there is no job but a note why, with an entry; and tell people."""
    request_id = to_request_id(slot_request_id(schedule, slot))
    code = type(error).__name__
    entry = job_entry(request_id, "#refused", "schedule.refused", "denied", code, services)

    def transaction(session: Session) -> bool:
        if not _move(schedule, standing, {"last_slot": slot}, services.databases, session=session):
            return False
        Refusal(schedule.kind.name, request_id, ORIGIN, error).put_note(services, session)
        if not services.log.holds(entry, session=session):  # the old file and the new one may have a slot in common
            services.log.caused_by(Cause(channel="schedule")).append(entry, session=session)
        return True

    if services.databases.transact(transaction):
        log.error("schedule.refused", request_id=request_id, error=code)
        report_error(error, kind=schedule.kind.name, request_id=request_id)


def _move(
    schedule: Schedule,
    standing: Standing,
    changes: Document,
    databases: Databases,
    *,
    session: Session | None = None,
) -> bool:
    """Write *changes* unless another process did since *standing* was read."""
    unchanged = {"_id": _id(schedule), "last_slot": standing.last_slot, "since": standing.since}
    with driver_errors(session):
        return _collection(databases).update_one(unchanged, {"$set": changes}, session=session).matched_count == 1


def _id(schedule: Schedule) -> str:
    return f"{schedule.name} {schedule.when}"


def _collection(databases: Databases) -> Collection[Document]:
    return databases.compliance[SCHEDULES]
