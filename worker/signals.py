"""What happens when a process of Celery starts, is ready and stops."""

import mmap
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals

from compliance.errors import StoreUnavailable
from compliance.settings import Settings
from worker.liveness import Gate, Heartbeat, connect_heartbeat, fault_ends_process
from worker.resume import SWEEP_QUEUE
from worker.resume import TASK as SWEEP
from worker.tasks import JOBS
from worker.telemetry import configure_logging, configure_sentry
from worker.telemetry.exposition import serve_worker

log = structlog.get_logger(__name__)


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


def connect_signals(app: Celery, settings: Settings, *, stop: StopFlag, gate: Gate) -> None:
    """Connect what the processes of *app* do beside their tasks.

    Args:
        app: The application.
        settings: The settings.
        stop: Set when the worker begins to shut down.
        gate: Asked before the worker takes any work, and until it lets it.
    """
    _connect_telemetry(settings)
    _connect_work(app, stop, gate)
    _connect_metrics(settings)
    connect_heartbeat(app, Heartbeat(settings.heartbeat_file), gate)


def _connect_telemetry(settings: Settings) -> None:
    def set_up_logging(**_: Any) -> None:
        configure_logging(settings.log_level)

    def set_up_sentry(**_: Any) -> None:
        configure_sentry(settings)

    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_init.connect(set_up_sentry, weak=False)
    signals.beat_init.connect(set_up_sentry, weak=False)


def _connect_work(app: Celery, stop: StopFlag, gate: Gate) -> None:
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
