"""The Celery application: one queue per kind of work, JSON only, nothing of a payload shown anywhere."""

import mmap
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, Task, signals
from celery.exceptions import Reject
from celery.worker.request import Request
from kombu import Queue

from compliance.errors import ComplianceError, ConfigurationError, StoreUnavailable
from compliance.jobs.job import Job
from compliance.provision import refuse_excess
from compliance.settings import Settings
from worker import consumer
from worker.broker import broker_settings
from worker.intake import REQUEST_ID, UNKNOWN, Message, receive, refuse_unknown
from worker.job import JobKind
from worker.liveness import Gate, Heartbeat, connect_heartbeat, fault_ends_process
from worker.repairs import repair_closed_channels, shorten_pool_exit
from worker.resume import SWEEP_QUEUE, beat_schedule, sweep_in_turn
from worker.resume import TASK as SWEEP
from worker.routing import QUEUES
from worker.services import PerProcess, Services
from worker.signature import SERVICE, SIGNATURE, TIMESTAMP, Keyring, read_seal
from worker.tasks import JOBS
from worker.telemetry import configure_logging, configure_sentry, metrics, report_error
from worker.telemetry.exposition import serve_worker

log = structlog.get_logger(__name__)

HIDDEN = "<hidden>"
MAX_INTAKE_DELAY_SECONDS = 30.0
OWN_ROUTES = {SWEEP: {"queue": SWEEP_QUEUE}, consumer.REFUSE: {"queue": SWEEP_QUEUE}}
TRACEPARENT = "traceparent"
KEPT_HEADERS = (TRACEPARENT, consumer.FAULT, SERVICE, TIMESTAMP, SIGNATURE)


class StopFlag:
    """One byte that a worker and its pool processes share: set once, when the worker begins to shut down.

    No lock, so a process that is killed while it reads cannot block the others.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Ask every process to stop after its present batch."""
        self._memory[0] = 1

    def __call__(self) -> bool:
        """Whether the worker is shutting down."""
        return self._memory[0] == 1


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


def configure(app: Celery, settings: Settings, *, broker_url: str) -> None:
    """Set up *app*; each setting says why."""
    app.conf.update(
        **broker_settings(broker_url, settings),
        worker_consumer=f"{consumer.__name__}:{consumer.CarefulConsumer.__name__}",  # lives whatever strangers send
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 100
        broker_channel_error_retry=True,  # RabbitMQ closes the channel of a job that takes long; the worker would end
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_ignore_result=True,  # results live in the ledger; in Redis they would be one more copy
        result_backend=None,
        task_acks_late=True,  # an early acknowledgement loses the message with the worker
        task_reject_on_worker_lost=True,  # a message whose worker dies comes again; a job that is leased lets it pass
        task_track_started=True,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_default_queue=SWEEP_QUEUE,
        task_create_missing_queues=False,  # a mistyped queue is an error at the sender, not a black hole
        task_routes={kind.task: {"queue": kind.queue} for kind in JOBS.values()} | OWN_ROUTES,
        worker_prefetch_multiplier=1,  # a worker holds what it works on, nothing more
        worker_eta_task_limit=100,  # while MongoDB is away, messages wait in the broker and not in our memory
        worker_max_tasks_per_child=500,
        worker_max_memory_per_child=settings.child_memory_mb * 1024,  # KiB; looked at after a task, never within one
        # A task that hangs renews its lease for ever. Killed, its job is claimed again, and parked if it always hangs.
        task_time_limit=settings.job_limit.total_seconds(),
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the fence guards; cancelling has known bugs
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=True,  # Flower
        task_send_sent_event=True,
        enable_utc=True,
        timezone="UTC",
        beat_scheduler="celery.beat:Scheduler",  # the schedule is code; the default keeps a pickled file
        beat_schedule=beat_schedule(settings.sweep_interval),
    )


def check_rights(services: Services) -> None:
    """Refuse to work as a user that could alter the audit log, or with keys for tasks that do not exist."""
    refuse_unknown_tasks(services.keyring)
    refuse_excess(services.databases)


def refuse_unknown_tasks(keyring: Keyring | None) -> None:
    """Return if every task that *keyring* names exists.

    Raises:
        ConfigurationError: With the known ones.
    """
    known = {kind.task for kind in JOBS.values()}
    if keyring is not None and not keyring.named_tasks <= known:
        raise ConfigurationError(
            f"COMPLIANCE_SIGNING_KEYS: tasks: one does not exist; known: {', '.join(sorted(known))}"
        )


def create_app(
    settings: Settings,
    *,
    broker_url: str,
    build: Callable[[Celery, StopFlag], Services],
    check: Callable[[Services], None] = check_rights,
) -> Celery:
    """Return the application; it connects to nothing until it is used.

    Args:
        settings: The settings.
        broker_url: Where messages are.
        build: Makes the services of one process.
        check: Asked before the first of them is used.
    """
    repair_closed_channels()
    shorten_pool_exit()
    consumer.read_whatever_comes()
    app = Celery("compliance", set_as_current=False)
    configure(app, settings, broker_url=broker_url)
    stop = StopFlag()
    services = PerProcess(lambda: build(app, stop), check=check)
    for kind in JOBS.values():
        _add_task(app, kind, services)
    _add_sweep(app, services)
    _add_refusal(app, services)
    gate = Gate(lambda: _look(build(app, stop), check))
    _connect_signals(app, settings, stop, gate)
    _connect_metrics(settings)
    connect_heartbeat(app, Heartbeat(settings.heartbeat_file), gate)
    return app


def _add_task(app: Celery, kind: JobKind, services: PerProcess) -> None:
    def handle(self: ComplianceTask, *args: Any, **kwargs: Any) -> None:
        request_id = _request_id(self, kwargs.pop(REQUEST_ID, None))

        message = Message(
            kind=kind,
            values={"positional arguments": HIDDEN} if args else kwargs,
            request_id=request_id,
            message_id=str(self.request.id),
            traceparent=_text(self.request.get(TRACEPARENT)),
            is_repeat=bool((self.request.delivery_info or {}).get("redelivered")),
            fault=consumer.fault_text(self.request.get(consumer.FAULT)),
            seal=read_seal(self.request.__dict__),
        )
        with _out_of_sight(self, kind.name, request_id):
            receive(message, services=services(), on_progress=Progressing(self))

    app.task(bind=True, name=kind.task, base=ComplianceTask, shared=False, ignore_result=True)(handle)


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
        report_error(error, kind=kind, request_id=str(request_id))
        frames = [f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in traceback.extract_tb(error.__traceback__)]
        log.error("task.crashed", kind=kind, error=type(error).__name__, stack=frames)  # noqa: TRY400
        raise JobCrashed(f"{kind}: {type(error).__name__}") from None


def progress_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the event that tells Flower how far a job is.

    Of the fields of such an event Flower shows those that every task has, so the progress stands in ``result``, which
    is empty until the end: our results live in the ledger.
    """
    step, steps, inserted = (checkpoint.get(name) for name in ("step", "steps", "inserted"))
    if step and steps:
        return {"step": step, "steps": steps, "result": f"step {step} of {steps}"}
    return {"result": f"{inserted} documents inserted"} if inserted else {}


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that a message keeps when it is tried again; Celery alone would lose them beside others."""
    return {name: headers[name] for name in KEPT_HEADERS if headers.get(name) is not None}


def _again(task: ComplianceTask, error: ComplianceError) -> Exception:
    """Publish the message of *task* once more, for later; return what tells Celery so.

    Where the broker is away, too, the message goes back to its queue as it is: by default Celery drops it.
    """
    hidden: dict[str, Any] = {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
    try:
        headers = _kept(task.request.__dict__)
        return task.retry(exc=error, countdown=_jitter(), throw=False, headers=headers, **hidden)
    except Reject:
        return Reject(type(error).__name__, requeue=True)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _jitter() -> float:
    return random.uniform(1, MAX_INTAKE_DELAY_SECONDS)  # noqa: S311 - spreads load, guards nothing


def _add_sweep(app: Celery, services: PerProcess) -> None:
    def handle(self: ComplianceTask) -> None:
        del self
        sweep_in_turn(services())

    app.task(bind=True, name=SWEEP, base=ComplianceTask, shared=False, ignore_result=True)(handle)


def _add_refusal(app: Celery, services: PerProcess) -> None:
    """Add the task that stands for all that do not exist."""
    known = [kind.task for kind in JOBS.values()]

    def handle(self: ComplianceTask, *_: Any, **kwargs: Any) -> None:
        request_id = _request_id(self, kwargs.get(REQUEST_ID))
        with _out_of_sight(self, UNKNOWN, request_id):
            refuse_unknown(request_id, message_id=str(self.request.id), known=known, services=services())

    app.task(bind=True, name=consumer.REFUSE, base=ComplianceTask, shared=False, ignore_result=True)(handle)


def _look(services: Services, check: Callable[[Services], None]) -> None:
    with services.databases.client:  # closed again before the pool forks
        check(services)


def _connect_signals(app: Celery, settings: Settings, stop: StopFlag, gate: Gate) -> None:
    def set_up_logging(**_: Any) -> None:
        configure_logging(settings.log_level)

    def set_up_sentry(**_: Any) -> None:
        configure_sentry(settings)

    def look_first(**_: Any) -> None:
        """End the worker (exit 78) before it takes any work, if its user could alter the audit log."""
        with fault_ends_process():
            try:
                gate.try_once()
            except StoreUnavailable as error:
                log.warning("worker.rights_not_checked", error=str(error))

    def look_for_work(**_: Any) -> None:
        app.send_task(SWEEP, queue=SWEEP_QUEUE)

    def stop_after_batch(**_: Any) -> None:
        stop.set()

    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_init.connect(set_up_sentry, weak=False)
    signals.beat_init.connect(set_up_sentry, weak=False)
    signals.worker_init.connect(look_first, weak=False)
    signals.worker_ready.connect(look_for_work, weak=False)
    signals.worker_shutting_down.connect(stop_after_batch, weak=False)


def _connect_metrics(settings: Settings) -> None:
    port = settings.metrics_port
    if port is None:
        return
    stops: list[Callable[[], None]] = []

    def begin(**_: Any) -> None:
        with fault_ends_process():
            stops.append(serve_worker(settings.metrics_host, port, kinds=JOBS))

    def end(**_: Any) -> None:
        while stops:
            stops.pop()()

    signals.worker_init.connect(begin, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def publisher(app: Celery) -> Callable[[Job], None]:
    """Return a function that rings the doorbell for a job; it never raises, for the sweeper rings again."""

    def publish(job: Job) -> None:
        kind = JOBS[job.kind]
        try:
            app.send_task(
                kind.task,
                kwargs={**job.payload, "request_id": job.request_id},
                queue=kind.queue,
                argsrepr=HIDDEN,
                kwargsrepr=HIDDEN,
                retry=False,
            )
        except Exception as error:  # noqa: BLE001 - any error of the broker's client
            metrics.UNPUBLISHED.inc(job.kind)
            log.warning("job.not_published", request_id=job.request_id, error=type(error).__name__)

    return publish
