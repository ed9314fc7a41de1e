"""The Celery tasks: each hands its message on, and nothing of a payload is shown anywhere."""

import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Reject
from celery.worker.request import Request

from compliance.errors import ComplianceError, InvalidPayload, TransientError
from compliance.jobs.job import to_request_id
from worker import consumer
from worker.doorbell import HIDDEN, RECORDED
from worker.envelope import FAULTS, LONGEST_PUT_OFF_SECONDS, PUT_OFF
from worker.intake import REQUEST_ID, Message, receive
from worker.job import JobKind, progress_text
from worker.refusal import UNKNOWN, no_such_task, refuse_no_job
from worker.resume import TASK as SWEEP
from worker.resume import sweep_in_turn
from worker.services import PerProcess
from worker.signature import SERVICE, SIGNATURE, TIMESTAMP, read_seal
from worker.tasks import JOBS
from worker.telemetry import report_error

log = structlog.get_logger(__name__)

TRACEPARENT = "traceparent"
KEPT_HEADERS = (TRACEPARENT, consumer.FAULT, RECORDED, SERVICE, TIMESTAMP, SIGNATURE)


class HiddenRequest(Request):
    """A request whose arguments are shown nowhere: events, Flower, ``inspect`` and logs read these fields."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = self._type  # type: ignore[attr-defined,misc]  # the stubs differ; not the name a sender gave it
        self._argsrepr = self._kwargsrepr = HIDDEN
        shown = {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN, "shadow": None}  # what the pool process logs
        self._request_dict.update(shown)  # type: ignore[attr-defined]  # missing in the stubs

    def info(self, safe: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Return what ``inspect`` shows; never the arguments themselves."""
        del safe
        return super().info(safe=True)


class ComplianceTask(Task[..., None]):
    """Base of our tasks."""

    abstract = True
    Request = f"{__name__}:{HiddenRequest.__name__}"
    typing = False  # a wrong call is recorded as refused, not raised at the sender
    max_retries = None  # the default gives up after 3, and the message is gone


class Progressing:
    """Tells Flower how far one attempt is, until the broker does not answer: the work needs neither."""

    def __init__(self, task: ComplianceTask) -> None:
        self._task = task
        self._is_heard = True

    def __call__(self, checkpoint: Mapping[str, Any]) -> None:
        """Send one event."""
        if not self._is_heard:
            return
        try:
            self._task.send_event("task-progress", **progress_of(checkpoint))
        except Exception as error:  # noqa: BLE001 - any error of the broker's client
            self._is_heard = False
            log.info("job.progress_not_shown", error=type(error).__name__)


class JobCrashed(Exception):
    """A job met an unexpected error; the message names its type only."""


def add_tasks(app: Celery, services: PerProcess) -> None:
    """Add a task for each kind of work, the sweep, and the task that stands for all that do not exist."""
    for kind in JOBS.values():
        _add_task(app, kind, services)
    _add_sweep(app, services)
    _add_refusal(app, services)


def _add_task(app: Celery, kind: JobKind, services: PerProcess) -> None:
    def handle(self: ComplianceTask, *args: Any, **kwargs: Any) -> None:
        request_id = _request_id(self, kwargs.pop(REQUEST_ID, None))
        fault = consumer.fault_text(self.request.get(consumer.FAULT))

        message = Message(
            kind=kind,
            values=kwargs,
            request_id=request_id,
            message_id=str(self.request.id),
            traceparent=_text(self.request.get(TRACEPARENT)),
            is_repeat=bool((self.request.delivery_info or {}).get("redelivered") or self.request.get(RECORDED)),
            fault=fault or (FAULTS["args"] if args else None),
            seal=read_seal(self.request.__dict__),
        )
        with _out_of_sight(self, kind.name, request_id):
            receive(message, services=services(), on_progress=Progressing(self))

    app.task(bind=True, name=kind.task, base=ComplianceTask, shared=False, ignore_result=True)(handle)


def _add_sweep(app: Celery, services: PerProcess) -> None:
    def handle(self: ComplianceTask, *args: Any, **kwargs: Any) -> None:
        fault = consumer.fault_text(self.request.get(consumer.FAULT))
        if args or kwargs or fault is not None:  # anybody can send it, and what is in it must not be shown
            error = InvalidPayload(f"{SWEEP}: {fault or 'expected no arguments'}")
            _refuse_no_job(self, error, kwargs.get(REQUEST_ID), services)
            return
        with _out_of_sight(self, SWEEP, None):
            _sweep_or_wait(services)

    app.task(bind=True, name=SWEEP, base=ComplianceTask, shared=False, ignore_result=True)(handle)


def _sweep_or_wait(services: PerProcess) -> None:
    """Sweep; a sweep that fails is not tried again, for beat asks for the next one in a moment."""
    try:
        sweep_in_turn(services())
    except TransientError as error:
        log.warning("sweep.put_off", error=type(error).__name__)
    except ComplianceError as error:
        log.error("sweep.failed", error=str(error))  # noqa: TRY400 - a stack could quote values


def _add_refusal(app: Celery, services: PerProcess) -> None:
    """Add the task that stands for all that do not exist."""
    known = [kind.task for kind in JOBS.values()]

    def handle(self: ComplianceTask, *_: Any, **kwargs: Any) -> None:
        _refuse_no_job(self, no_such_task(known), kwargs.get(REQUEST_ID), services)

    app.task(bind=True, name=consumer.REFUSE, base=ComplianceTask, shared=False, ignore_result=True)(handle)


def _refuse_no_job(task: ComplianceTask, error: ComplianceError, given: Any, services: PerProcess) -> None:
    request_id = _request_id(task, given)
    with _out_of_sight(task, UNKNOWN, request_id):
        refuse_no_job(error, request_id, message_id=str(task.request.id), services=services())


def _request_id(task: ComplianceTask, given: Any) -> Any:
    """Return *given*, however wrong it is, so that it is refused; the id of the message only where there is none."""
    return str(task.request.id) if given is None else given


@contextmanager
def _out_of_sight(task: ComplianceTask, kind: str, request_id: Any) -> Iterator[None]:
    """Let no error of the block show a value; what could not be recorded is tried again."""
    try:
        yield
    except ComplianceError as error:
        # Nothing is recorded yet: the message is all there is, so it stays in the broker.
        raise _again(task, error) from None
    except Exception as error:  # noqa: BLE001 - the last place that can keep its values out of sight
        report_error(error, kind=kind, request_id=_shown(request_id))
        frames = [f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in traceback.extract_tb(error.__traceback__)]
        log.error("task.crashed", kind=kind, error=type(error).__name__, stack=frames)  # noqa: TRY400
        raise JobCrashed(f"{kind}: {type(error).__name__}") from None


def _shown(request_id: Any) -> str:
    """Return *request_id* where it may be shown: it is not validated yet."""
    try:
        return to_request_id(request_id)
    except InvalidPayload:
        return "none"


def progress_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the event that tells Flower how far a job is.

    Of the fields of such an event Flower shows those that every task has, so the progress stands in ``result``, which
    is empty until the end: our results live in the ledger.
    """
    said = progress_text(checkpoint)
    steps = {name: checkpoint[name] for name in ("step", "steps") if checkpoint.get("step") and checkpoint.get("steps")}
    return {**steps, "result": said} if said else {}


def _again(task: ComplianceTask, error: ComplianceError) -> Exception:
    """Publish the message of *task* once more, for later; return what tells Celery so.

    Where the broker is away, too, the message goes back to its queue as it is: by default Celery drops it.
    """
    hidden: dict[str, Any] = {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
    seconds = _jitter()
    try:
        headers = _kept(task.request.__dict__) | {PUT_OFF: seconds}
        return task.retry(exc=error, countdown=seconds, throw=False, headers=headers, **hidden)
    except Reject:
        return Reject(type(error).__name__, requeue=True)


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that a message keeps when it is tried again; Celery alone would lose them beside others."""
    return {name: headers[name] for name in KEPT_HEADERS if headers.get(name) is not None}


def _jitter() -> float:
    return random.uniform(1, LONGEST_PUT_OFF_SECONDS)  # noqa: S311 - spreads load, guards nothing


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
