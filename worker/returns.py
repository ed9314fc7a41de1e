"""Data of erased people that came back: note it, and ask for its erasure, in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from compliance.audit.entry import Detail, Entry
from compliance.datamap.subject import to_entity_id, to_text
from compliance.erasure.erased import Erased
from compliance.erasure.returns import Again, Returned, note_return
from compliance.erasure.stage import COMPLETE, Stage
from compliance.jobs.job import DEFAULT_PRIORITY, HIGHEST_PRIORITY, Job, Prefix, State
from compliance.mongo import Session
from worker.alert import alert_data_comes_back
from worker.intake import Message, admit, record, submit
from worker.job import ACTOR, JOBS
from worker.services import Services

log = structlog.get_logger(__name__)

ORIGIN = "watcher"
AGAIN, LOOK = "erasure.returned", "erasure.look"
SEEN_IN = ("stream", "database")
# What is written from the beginning of the last look on could escape it; before, the erasure finds it itself.
COUNTS = (Stage.VERIFYING, *COMPLETE)


@dataclass(frozen=True, slots=True)
class Asked:
    """An erasure that was asked for."""

    again: Again
    job: Job


def erased_people(services: Services) -> Erased:
    """Return the people whose data must not come back."""
    return Erased(databases=services.databases, pseudonyms=services.pseudonyms, stages=COUNTS)


def ask_again(people: Iterable[Returned], services: Services, *, seen_in: str, session: Session) -> list[Asked]:
    """Record in the transaction of *session* an erasure for each of *people* for whom none waits, with its entry.

    Args:
        people: Whose data came back.
        services: The services.
        seen_in: ``stream`` (somebody wrote it) or ``database`` (it was found there).
        session: The transaction. MUST be the one that says up to where was looked.
    """
    now = services.clock.now()
    noted = [note_return(services.databases, returned, now=now, session=session) for returned in people]
    return [_ask(again, services, seen_in=seen_in, session=session) for again in noted if again is not None]


def publish(asked: Sequence[Asked], services: Services) -> None:
    """Ring for what was asked for, behind the commit; tell people where somebody does not stop writing."""
    for one in asked:
        again = one.again
        log.warning("erasure.returned", request_id=one.job.request_id, times=again.times)
        if again.pause:
            alert_data_comes_back(times=again.times, pause=again.pause, request_id=one.job.request_id)
        else:
            services.publish(one.job)


def ask_look(services: Services, *, cause: str, session: Session) -> Job | None:
    """Ask in the transaction of *session* for a look at the whole database; None where one waits already."""
    waiting = {"kind": LOOK, "state": State.QUEUED.value}
    if services.ledger.jobs.find_one(waiting, {"_id": 1}, session=session) is not None:
        return None
    request_id = f"{Prefix.WATCH}{cause}"
    return submit(JOBS[LOOK], {}, request_id=request_id, origin=ORIGIN, services=services, session=session)


def _ask(again: Again, services: Services, *, seen_in: str, session: Session) -> Asked:
    returned, pause = again.returned, again.pause
    values = {
        "subject_id": to_text(returned.subject_id),
        "tenant": None if returned.tenant is None else to_text(returned.tenant),
        "earlier": returned.earlier,
        "priority": HIGHEST_PRIORITY if not pause else DEFAULT_PRIORITY,
    }
    message = Message(kind=JOBS[AGAIN], values=values, request_id=again.request_id, origin=ORIGIN)
    job = record(admit(message, services), services, session=session)
    if pause:
        job = _put_off(job, again, services, session)
    details: dict[str, Detail] = {
        "earlier": returned.earlier,
        "seen_in": seen_in,
        "collections": list(returned.collections),
        "times": again.times,
        "pause_seconds": int(pause.total_seconds()),
    }
    entry = Entry(
        event=f"{again.request_id}#returned",
        entity_type="user",
        entity_id=to_entity_id(returned.subject_id),
        action="erasure.returned",
        created_at=services.clock.now(),
        performed_by=ACTOR,
        request_id=again.request_id,
        details=details,
    )
    services.log.caused_by(job.cause).append(entry, session=session)
    return Asked(again, job)


def _put_off(job: Job, again: Again, services: Services, session: Session) -> Job:
    """Let *job* wait; nobody can have taken it, for its transaction has not committed."""
    run_at = services.clock.now() + again.pause
    changes = {"run_at": run_at, "ring_at": run_at}
    services.ledger.jobs.update_one({"_id": job.request_id}, {"$set": changes}, session=session)
    return replace(job, run_at=run_at)
