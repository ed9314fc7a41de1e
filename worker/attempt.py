"""One attempt at a job: claim, work, and what its errors decide."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import structlog

from compliance.audit.entry import Detail, Entry
from compliance.erasure.frozen import is_frozen
from compliance.errors import (
    ComplianceError,
    Disposition,
    JobKillsWorkers,
    LeaseLost,
    NotDue,
    StepRefused,
    StoreUnavailable,
)
from compliance.jobs.document import finished, from_document
from compliance.jobs.job import Ask, Job, RequestId, State
from compliance.jobs.ledger import Claim
from compliance.jobs.run import Interrupted, Run, Stopped, heartbeat
from compliance.mongo import Document, Session
from worker.job import ACTOR, JOBS, JobKind, parse
from worker.services import Progress, Services
from worker.telemetry import Ending, observed, report_error

log = structlog.get_logger(__name__)

BUG_ATTEMPTS = 3
MAX_TAKEOVERS = 2
OF_THE_LIMIT = 0.9  # when an attempt hands over; at the limit its process is killed
MAX_BACKOFF = timedelta(minutes=5)
CANDIDATES = 20  # how many to try at a time
END_ACTIONS = {
    State.REJECTED: ("job.rejected", "denied"),
    State.PARKED: ("job.parked", "failure"),
    State.CANCELLED: ("job.cancelled", "success"),
}
RUNG = 5  # waiting jobs told that a lock is free; each of them tells the next


def carry_out_at_once(kind: JobKind, document: Document, services: Services) -> bool:
    """Carry out a new, small job in the one transaction that records it.

    Args:
        kind: A small kind.
        document: The job as ``new_document`` made it.
        services: The services.

    Returns:
        Whether it is done. Where not, nothing was committed, or it is not known: the caller records the job and
        carries it out under a lease.
    """
    owner = services.owner
    document = document | {
        "state": State.RUNNING.value,
        "attempts": 1,
        "fence": 1,
        "lease": {"owner": owner, "until": document["created_at"]},
    }
    claim = Claim(job=from_document(document), owner=owner)
    run = Run(
        claim=claim,
        ledger=services.ledger,
        log=services.log.caused_by(claim.job.cause),
        clock=services.clock,
        unrecorded=document,
        should_stop=services.should_stop,
    )
    with observed(claim.job, now=services.clock.now()) as end:
        try:
            kind.work(parse(kind, claim.job.payload), run, services)
        except Exception as error:  # noqa: BLE001 - the slow way meets it again, and settles it
            log.info("job.not_at_once", error=type(error).__name__)
            return False
        log.info("job.done")
        end(Ending.DONE)
    return True


def carry_out_most_urgent(kind: JobKind, rung: Job, *, services: Services, on_progress: Progress) -> None:
    """Work on the most urgent waiting job of *kind*: a message says only that there is work.

    Args:
        kind: The kind of work.
        rung: The job whose message came; it is taken over where its worker has vanished.
        services: The services.
        on_progress: Told each checkpoint.
    """
    for request_id in _candidates(kind, rung, services):
        if carry_out(kind, request_id, services=services, on_progress=on_progress):
            return


def _candidates(kind: JobKind, rung: Job, services: Services) -> Iterator[RequestId]:
    """Yield what a message may be about: where its own job is in good hands, its sender's place goes to the next."""
    if rung.state is State.RUNNING:
        yield rung.request_id
    urgent = services.ledger.most_urgent(kind.name, limit=CANDIDATES)
    yield from urgent
    if len(urgent) == CANDIDATES:  # all of them wait for a lock: look behind them
        yield from services.ledger.most_urgent(kind.name, limit=CANDIDATES, is_free=True)


def carry_out(kind: JobKind, request_id: RequestId, *, services: Services, on_progress: Progress) -> bool:
    """Claim the job and work on it; what it raises decides what becomes of it. Return whether it could be claimed."""
    claim = services.ledger.claim(request_id, owner=services.owner, lease=services.lease)
    if claim is None:
        return False
    late = services.clock.now() + OF_THE_LIMIT * services.settings.job_limit
    run = Run(
        claim=claim,
        ledger=services.ledger,
        log=services.log.caused_by(claim.job.cause),
        clock=services.clock,
        should_stop=services.should_stop,
        is_late=lambda: services.clock.now() >= late,
        on_progress=on_progress,
    )
    seen = observed(claim.job, now=services.clock.now(), monitor=services.monitor(claim.job))
    with _releasing_locks(claim.job, services), seen as end:
        end(_attempt(kind, run, services))
    return True


def _attempt(kind: JobKind, run: Run, services: Services) -> Ending:
    log.info("job.started")
    try:
        _refuse_hopeless(run.job)
        with heartbeat(run, lease=services.lease):
            kind.work(parse(kind, run.job.payload), run, services)
    except Stopped:
        services.ledger.hand_back(run.claim, delay=timedelta())
        services.publish(run.job)  # a successor need not wait for the sweeper
        log.info("job.handed_back")
        return Ending.HANDED_BACK
    except Interrupted as interruption:
        log.info("job.interrupted", ask=interruption.ask.value)
        return _hear(run, interruption.ask, services)
    except LeaseLost:
        log.warning("job.lease_lost")
        return Ending.LEASE_LOST
    except ComplianceError as error:
        error = _of_the_moment(error, services)
        log.warning("job.failed", error=type(error).__name__, disposition=error.disposition.value)
        return _settle(run, error, services)
    except Exception as error:
        log.error("job.crashed", error=type(error).__name__)  # noqa: TRY400 - a stack could quote values
        _settle_bug(run, error, services)
        raise
    log.info("job.done")
    return Ending.DONE


def _of_the_moment(error: ComplianceError, services: Services) -> ComplianceError:
    """Return *error*, or one that passes where a migration has a collection refuse every write for a moment."""
    if isinstance(error, StepRefused) and is_frozen(services.databases):
        return StoreUnavailable("a collection takes no writes for a moment: a migration exchanges it")
    return error


def _refuse_hopeless(job: Job) -> None:
    if job.asked is not None:
        raise Interrupted(job.request_id, job.asked)
    if job.takeovers >= MAX_TAKEOVERS:
        raise JobKillsWorkers(f"{job.takeovers} workers in a row died of it")


@contextmanager
def _releasing_locks(job: Job, services: Services) -> Iterator[None]:
    """Ring for jobs that waited for what *job* had alone."""
    try:
        yield
    finally:
        if job.locks:
            for waiting in services.ledger.waiting_for(job.locks, limit=RUNG):
                services.publish(waiting)


def _settle(run: Run, error: ComplianceError, services: Services) -> Ending:
    if error.disposition is Disposition.RETRY:
        delay = error.until - services.clock.now() if isinstance(error, NotDue) else backoff(run.job.attempts)
        services.ledger.hand_back(run.claim, delay=max(delay, timedelta()), error=describe(error))
        return Ending.RETRIED
    if error.disposition is Disposition.REJECT:
        return _end(run, State.REJECTED, describe(error), services)
    report_error(error, kind=run.job.kind, request_id=run.job.request_id)
    return _end(run, State.PARKED, describe(error), services)


def _settle_bug(run: Run, error: Exception, services: Services) -> None:
    described = {"code": type(error).__name__, "message": "unexpected error; the worker's log and Sentry have it"}
    if run.job.attempts < BUG_ATTEMPTS:
        services.ledger.hand_back(run.claim, delay=backoff(run.job.attempts), error=described)
    else:
        _end(run, State.PARKED, described, services)


def _hear(run: Run, ask: Ask, services: Services) -> Ending:
    described = {"code": "Interrupted", "message": f"a person asked to {ask.value} it; it ended between two batches"}
    return _end(run, ask.leads_to, described, services, heard=ask)


def _end(run: Run, state: State, error: Mapping[str, str], services: Services, *, heard: Ask | None = None) -> Ending:
    """Record the end of a job that did not succeed, with its entry, under the fence."""
    now = services.clock.now()
    action, outcome = END_ACTIONS[state]
    if heard is not None:
        outcome = "success"  # a person asked for it
    entry = job_entry(run.job.request_id, f"#{run.job.fence}", action, outcome, error["code"], services)

    def effect(session: Session) -> None:
        changes = finished(state, now=now, error=dict(error), asked=None)
        services.ledger.advance(run.claim, changes, session=session, heard=heard)
        if state is State.CANCELLED:
            JOBS[run.job.kind].on_cancel(run.job, services, session)
        elif state is State.PARKED and heard is None:
            JOBS[run.job.kind].on_failure(run.job, services, session)
        run.log.append(entry, session=session)

    try:
        services.databases.transact(effect)
    except LeaseLost:
        ask = services.ledger.asked(run.claim)
        if ask is not None and ask is not heard:
            return _hear(run, ask, services)
        log.warning("job.lease_lost")
        return Ending.LEASE_LOST
    return Ending(state.value)


def job_entry(
    request_id: RequestId,
    event: str,
    action: str,
    outcome: str,
    code: str | None,
    services: Services,
    *,
    actor: str = ACTOR,
) -> Entry:
    """Return the entry of something that happened to a job."""
    details: dict[str, Detail] = {"code": code} if code else {}
    return Entry(
        event=f"{request_id}{event}",
        entity_type="job",
        entity_id=request_id.replace("@", "(at)"),
        action=action,
        created_at=services.clock.now(),
        performed_by=actor,
        outcome=outcome,
        request_id=request_id,
        details=details,
    )


def describe(error: ComplianceError) -> dict[str, str]:
    """Return *error* as the ledger holds it."""
    return {"code": type(error).__name__, "message": str(error)}


def backoff(attempts: int, *, rng: Callable[[], float] = random.random) -> timedelta:
    """Return how long to wait after *attempts* failures: full jitter below a bound that doubles, at most 5 minutes.

    Source: Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    bound = min(MAX_BACKOFF.total_seconds(), 2.0 ** min(attempts, 16))
    return timedelta(seconds=bound * rng())
