"""The heartbeat file of a process: touched every few seconds while it does its work, and only then.

A worker beats in the event loop of its consumer, so that one that hangs, or has no broker, beats no more. Beat beats
when it ticks and its last message was sent. The watcher beats when every stream was read. The file appears when the
process is ready, and is gone when it has ended; ``worker.alive`` looks at it.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, bootsteps, signals
from celery.beat import Scheduler

from compliance.errors import ComplianceError, ConfigurationError, StoreUnavailable

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 2.0


class Heartbeat:
    """One file that says that a process works; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def begin(self) -> None:
        """Remove what an earlier process left.

        Raises:
            ConfigurationError: When the file could not be written later.
        """
        if self.path is None:
            return
        try:
            self.path.touch(mode=0o644)
            self.path.unlink()
        except OSError as error:
            raise ConfigurationError(
                f"COMPLIANCE_HEARTBEAT_FILE: {self.path} cannot be written ({type(error).__name__})"
            ) from None

    def beat(self) -> None:
        """Say that the process works; a disk that fails must not end it."""
        if self.path is None:
            return
        try:
            self.path.touch()
        except OSError as error:
            log.warning("heartbeat.not_written", error=type(error).__name__)

    def end(self) -> None:
        """Say that the process has ended."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextmanager
def fault_ends_process() -> Iterator[None]:
    """Turn an error of ours into one line and its exit code; Celery only logs what a handler of its signals raises."""
    try:
        yield
    except ComplianceError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(int(error.exit_code)) from None


class Chorus:
    """Beats when all its voices were heard since the last beat: one that hangs silences it."""

    def __init__(self, heartbeat: Heartbeat, voices: Iterable[str]) -> None:
        self._heartbeat = heartbeat
        self._voices = frozenset(voices)
        self._heard: set[str] = set()
        self._lock = threading.Lock()

    def hear(self, voice: str) -> None:
        """Note that the part *voice* of the process works."""
        with self._lock:
            self._heard.add(voice)
            if self._heard < self._voices:
                return
            self._heard.clear()
        self._heartbeat.beat()


class Gate:
    """Whether the rights of the process were checked; ``check`` is tried until MongoDB has answered."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self.is_open = False

    def try_once(self) -> None:
        """Check, and open.

        Raises:
            ComplianceError: What the check raises; the gate stays closed.
        """
        self._check()
        self.is_open = True

    def keep_trying(self, ended: threading.Event) -> None:
        """Check until it passes, or *ended* is set."""
        while not self.is_open and not ended.wait(INTERVAL_SECONDS):
            try:
                self.try_once()
            except StoreUnavailable:
                continue
            except ComplianceError as error:
                log.error("worker.refused", error=type(error).__name__, reason=str(error))  # noqa: TRY400 - ours


def connect_heartbeat(app: Celery, heartbeat: Heartbeat, gate: Gate) -> None:
    """Let the worker and the beat of *app* beat.

    Args:
        app: The application.
        heartbeat: Their file.
        gate: A worker does not beat before it is open.
    """
    if heartbeat.path is None:
        return
    app.steps["consumer"].add(consumer_step(heartbeat, gate))
    app.conf.update(beat_scheduler=beating_scheduler(heartbeat), beat_max_loop_interval=INTERVAL_SECONDS)

    def begin(**_: Any) -> None:
        with fault_ends_process():
            heartbeat.begin()

    def end(**_: Any) -> None:
        heartbeat.end()

    signals.worker_init.connect(begin, weak=False)
    signals.beat_init.connect(begin, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def consumer_step(heartbeat: Heartbeat, gate: Gate) -> type[bootsteps.StartStopStep]:
    """Return the part of a consumer that beats; it stops while the broker is away."""

    class Beating(bootsteps.StartStopStep):
        """Beats by a timer of the event loop, which runs only while messages can be taken."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self.timer: Any = None
            self.ended = threading.Event()

        def start(self, parent: Any) -> None:
            self.timer = parent.timer.call_repeatedly(INTERVAL_SECONDS, self.beat)
            if not gate.is_open:
                self.ended.clear()
                threading.Thread(target=gate.keep_trying, args=(self.ended,), name="rights", daemon=True).start()

        def stop(self, parent: Any) -> None:
            del parent
            self.ended.set()
            if self.timer is not None:
                self.timer.cancel()

        def beat(self) -> None:
            if gate.is_open:
                heartbeat.beat()

    return Beating


def beating_scheduler(heartbeat: Heartbeat) -> type[Scheduler]:
    """Return the scheduler of beat that beats with every tick, unless its last message could not be sent."""

    class Beating(Scheduler):
        """Ticks, and says so."""

        has_failed = False

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            self.has_failed = True
            sent = super().apply_async(*args, **kwargs)
            self.has_failed = False
            return sent

        def tick(self, *args: Any, **kwargs: Any) -> Any:
            _ = self.producer  # at the first tick this waits for the broker
            wait = super().tick(*args, **kwargs)
            if not self.has_failed:
                heartbeat.beat()
            return wait

        def close(self) -> None:
            super().close()
            heartbeat.end()

    return Beating
