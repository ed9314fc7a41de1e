"""A kind of work, and how one job of it is carried out: record, claim, work, and what its errors decide."""

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.audit.entry import Detail, Entry
from compliance.datamap.subject import parse_subject_id
from compliance.errors import (
    ComplianceError,
    Disposition,
    DuplicateEntry,
    InvalidPayload,
    JobKillsWorkers,
    LeaseLost,
    RequestConflict,
)
from compliance.jobs.job import Job, RequestId, State, to_request_id
from compliance.jobs.ledger import finished, new_document
from compliance.jobs.run import Run, Stopped, heartbeat
from compliance.mongo import Session
from compliance.registry import Registry
from worker.services import Progress, Services
from worker.telemetry import report_error

log = structlog.get_logger(__name__)

ACTOR = "worker"
COLLECTION_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]{0,119}$"
SAFE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
BUG_ATTEMPTS = 3
MAX_TAKEOVERS = 5
MAX_BACKOFF = timedelta(minutes=5)


class Payload(BaseModel):
    """Base of the payload models: ids only, nothing unknown, and no value in an error message."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def subjects(self) -> tuple[str, ...]:
        """Return the ids of the data subjects that it names, in ``subject_id`` or ``subject_ids``."""
        one, many = getattr(self, "subject_id", None), getattr(self, "subject_ids", ())
        return (*many, *((one,) if one is not None else ()))


P = TypeVar("P", bound=Payload)
Work = Callable[[P, Run, Services], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of work: its Celery task is ``compliance.<name>``."""

    name: str
    payload: type[Payload]
    queue: str
    work: Callable[[Any, Run, Services], None]

    @property
    def task(self) -> str:
        """The name that other services send."""
        return f"compliance.{self.name}"


JOBS: Registry[JobKind] = Registry("job kind")


def job(name: str, payload: type[P], *, queue: str) -> Callable[[Work[P]], Work[P]]:
    """Register a function as the work of the kind *name*."""

    def register(work: Work[P]) -> Work[P]:
        JOBS.add(name, JobKind(name=name, payload=payload, queue=queue, work=work))
        return work

    return register


def parse(kind: JobKind, values: Mapping[str, Any]) -> Payload:
    """Return the payload that *values* hold.

    Raises:
        InvalidPayload: With every fault by field; values, and names that could be values, are not repeated.
    """
    try:
        return kind.payload.model_validate(dict(values))
    except ValidationError as error:
        faults = {f"{_field(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)}
        raise InvalidPayload(f"{kind.task}: {'; '.join(sorted(faults))}") from None


def _field(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "payload"
    return name if SAFE_NAME.fullmatch(name) else "(a field whose name is not shown)"


def submit(
    kind: JobKind,
    values: Mapping[str, Any],
    *,
    request_id: str,
    origin: str,
    services: Services,
    session: Session | None = None,
) -> Job:
    """Make a job durable and return it: the same request twice is one job. Every way in ends here.

    Raises:
        InvalidPayload: When *values* or *request_id* do not fit; nothing was recorded.
        RequestConflict: When the request id came before with another payload.
    """
    payload = parse(kind, values)
    for subject_id in payload.subjects():  # before it is recorded: a name or an address must not be
        parse_subject_id(subject_id, services.data_map)
    return services.ledger.record(
        to_request_id(request_id),
        kind=kind.name,
        payload=payload.model_dump(mode="json", exclude_none=True),
        origin=origin,
        now=services.clock.now(),
        session=session,
    )


def receive(
    kind: JobKind,
    values: Mapping[str, Any],
    *,
    request_id: str,
    services: Services,
    on_progress: Progress = lambda _: None,
) -> None:
    """Take a message: record it, and carry the job out unless somebody else does or it is done.

    A message that can never succeed is recorded as refused, with the reason, and not tried again.

    Raises:
        TransientError: Only while the ledger cannot be reached, so that nothing is recorded yet.
    """
    try:
        recorded = submit(kind, values, request_id=request_id, origin="celery", services=services)
    except (InvalidPayload, RequestConflict) as error:
        _refuse_message(kind, request_id, error, services)
        return
    if recorded.state in (State.QUEUED, State.RUNNING):
        carry_out(kind, recorded.request_id, services=services, on_progress=on_progress)


def carry_out(kind: JobKind, request_id: RequestId, *, services: Services, on_progress: Progress) -> None:
    """Claim the job and work on it; what it raises decides what becomes of it."""
    claim = services.ledger.claim(request_id, owner=services.owner, lease=services.lease)
    if claim is None:
        return
    run = Run(
        claim=claim,
        ledger=services.ledger,
        log=services.log,
        clock=services.clock,
        should_stop=services.should_stop,
        on_progress=on_progress,
    )
    bound = log.bind(request_id=request_id, kind=kind.name, attempt=claim.job.attempts)
    bound.info("job.started")
    if claim.job.takeovers >= MAX_TAKEOVERS:
        _settle(run, JobKillsWorkers(f"{claim.job.takeovers} workers in a row died of it"), services)
        return
    try:
        with heartbeat(run, lease=services.lease):
            kind.work(parse(kind, claim.job.payload), run, services)
    except Stopped:
        services.ledger.hand_back(claim, delay=timedelta())
        bound.info("job.handed_back")
    except LeaseLost:
        bound.warning("job.lease_lost")
    except ComplianceError as error:
        bound.warning("job.failed", error=type(error).__name__, disposition=error.disposition.value)
        _settle(run, error, services)
    except Exception as error:
        bound.error("job.crashed", error=type(error).__name__)
        _settle_bug(run, error, services)
        raise
    else:
        bound.info("job.done")


def _settle(run: Run, error: ComplianceError, services: Services) -> None:
    if error.disposition is Disposition.RETRY:
        services.ledger.hand_back(run.claim, delay=backoff(run.job.attempts), error=_describe(error))
    elif error.disposition is Disposition.REJECT:
        _end(run, State.REJECTED, _describe(error), services)
    else:
        report_error(error, kind=run.job.kind, request_id=run.job.request_id)
        _end(run, State.PARKED, _describe(error), services)


def _settle_bug(run: Run, error: Exception, services: Services) -> None:
    described = {"code": type(error).__name__, "message": "unexpected error; the worker's log and Sentry have it"}
    if run.job.attempts < BUG_ATTEMPTS:
        services.ledger.hand_back(run.claim, delay=backoff(run.job.attempts), error=described)
    else:
        _end(run, State.PARKED, described, services)


def _end(run: Run, state: State, error: Mapping[str, str], services: Services) -> None:
    """Record the end of a job that did not succeed, with its entry, under the fence."""
    now = services.clock.now()
    outcome = "denied" if state is State.REJECTED else "failure"
    entry = _job_entry(run.job.request_id, f"#{run.job.fence}", f"job.{state.value}", outcome, error["code"], services)

    def effect(session: Session) -> None:
        services.ledger.advance(run.claim, finished(state, now=now, error=dict(error)), session=session)
        services.log.append(entry, session=session)

    try:
        services.databases.transact(effect)
    except LeaseLost:
        log.warning("job.lease_lost", request_id=run.job.request_id)


def _refuse_message(kind: JobKind, request_id: str, error: ComplianceError, services: Services) -> None:
    """Record a refused message without anything of its payload; a job of the same id is left alone.

    The same message again is the same refusal. A corrected one takes the place of what stands here.
    """
    log.warning("message.refused", kind=kind.name, error=type(error).__name__)
    described = _describe(error)
    usable = _usable(request_id)
    now = services.clock.now()
    document = new_document(usable, kind=kind.name, payload={}, origin="celery", now=now)
    document |= finished(State.REJECTED, now=now, error=described, refused=True)
    event = f"?{kind.name}?{described['message']}"
    entry = _job_entry(usable, event, "message.refused", "denied", described["code"], services)

    def effect(session: Session) -> None:
        if services.ledger.jobs.find_one({"_id": usable}, session=session) is None:
            services.ledger.jobs.insert_one(document, session=session)
        services.log.append(entry, session=session)

    try:
        services.databases.transact(effect)
    except DuplicateEntry:
        log.info("message.refused_before", kind=kind.name)


def _usable(request_id: str) -> RequestId:
    """Return *request_id*, or a stand-in where it may not be kept."""
    try:
        return to_request_id(request_id)
    except InvalidPayload:
        return RequestId(f"refused-{hashlib.sha256(str(request_id).encode()).hexdigest()[:16]}")


def _job_entry(request_id: str, event: str, action: str, outcome: str, code: str, services: Services) -> Entry:
    details: dict[str, Detail] = {"code": code}
    return Entry(
        event=f"{request_id}{event}",
        entity_type="job",
        entity_id=request_id.replace("@", "(at)"),
        action=action,
        created_at=services.clock.now(),
        performed_by=ACTOR,
        outcome=outcome,
        request_id=request_id,
        details=details,
    )


def _describe(error: ComplianceError) -> dict[str, str]:
    return {"code": type(error).__name__, "message": str(error)}


def backoff(attempts: int, *, rng: Callable[[], float] = random.random) -> timedelta:
    """Return how long to wait after *attempts* failures: full jitter below a bound that doubles, at most 5 minutes.

    Source: Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    bound = min(MAX_BACKOFF.total_seconds(), 2.0 ** min(attempts, 16))
    return timedelta(seconds=bound * rng())
