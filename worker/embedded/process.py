"""A server as a child of this process: started, awaited, stopped and, by tests, killed by its own process id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from compliance.errors import StoreUnavailable
from worker.embedded import launch
from worker.embedded.ports import is_free

START = timedelta(seconds=90)
GRACE = timedelta(seconds=20)
POLL_SECONDS = 0.02
LOG_LIMIT_BYTES = 16 * 1024 * 1024
TAIL_LINES = 3
LINE_CHARS = 300


class ServerExited(StoreUnavailable):
    """A server ended by itself while it was expected to run."""

    def __init__(self, message: str, *, is_port_taken: bool) -> None:
        super().__init__(message)
        self.is_port_taken = is_port_taken


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """How one server runs.

    Attributes:
        directory: Holds its data, log and ``pid`` file; its path is part of *command*, which identifies the process.
        listening: What its log says once the port is its own.
        is_ready: Asks the listening server whether it serves.
        exit_meanings: What an exit code of it means.
        is_telling: Says which line of its log explains an early end.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    port: int
    listening: str
    is_ready: Callable[[], bool]
    exit_meanings: Mapping[int, str] = field(default_factory=dict)
    is_telling: Callable[[str], bool] = bool

    @property
    def log(self) -> Path:
        """The file that its output is appended to."""
        return self.directory / "server.log"

    @property
    def pid_file(self) -> Path:
        """Holds the process id from before the server runs until it was stopped."""
        return self.directory / "pid"


class Server:
    """One server of a stack; ``kill`` and ``start`` let a test take it away and bring it back."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self) -> None:
        """Spawn the server and wait until it serves; a running one stays as it is.

        Raises:
            StoreUnavailable: When it ends early or is not ready in time; the message quotes its log.
        """
        if self.pid is None:
            self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the process without waiting.

        MUST be called in the main thread on Linux: a server dies with the thread that spawned it.
        """
        log = self.spec.log
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), self.spec.pid_file, *self.spec.command],
                cwd=self.spec.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C of the terminal reaches the supervisor only
            )

    def wait_ready(self) -> None:
        """Wait until the server serves.

        Raises:
            StoreUnavailable: As ``start``.
        """
        self.wait_listening()
        self.wait_until(self.spec.is_ready, what="is not ready")

    def wait_listening(self) -> None:
        """Wait until the server itself says that it listens: on a taken port somebody else would answer for it.

        Raises:
            StoreUnavailable: As ``start``.
        """
        self.wait_until(lambda: self.spec.listening in self._output(), what="does not listen")

    def wait_until(self, condition: Callable[[], bool], *, what: str) -> None:
        """Wait until *condition* holds, as long as the server lives.

        Args:
            what: Completes the sentence "<name> … after 90 s".

        Raises:
            StoreUnavailable: When the server ends first, or after 90 seconds.
        """
        deadline = time.monotonic() + START.total_seconds()
        while not condition():
            if self._ended_within(POLL_SECONDS):
                raise self._exited()
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"{self.spec.name} {what} after {START.total_seconds():.0f} s; "
                    f"its log {self.spec.log} ends: {self._tail()}"
                )

    def terminate(self) -> None:
        """Ask the server to stop, without waiting."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def stop(self, *, grace: timedelta = GRACE) -> None:
        """Stop the server in order, or by force when it needs longer than *grace*; it is gone afterwards."""
        self.terminate()
        if not self._ended_within(grace.total_seconds()):
            self.kill()
        self.spec.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would; its data stay as they are."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def _ended_within(self, seconds: float) -> bool:
        if self._child is None:
            return True
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _exited(self) -> ServerExited:
        code = self._child.returncode if self._child is not None else 0
        meaning = self.spec.exit_meanings.get(code)
        return ServerExited(
            f"{self.spec.name} ended with code {code}{f': {meaning}' if meaning else ''}; "
            f"its log {self.spec.log} says: {self._tail()}",
            is_port_taken=not is_free(self.spec.port),
        )

    def _tail(self) -> str:
        return summarise(self._output(), is_telling=self.spec.is_telling)

    def _output(self) -> str:
        with self.spec.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")


def summarise(log: str, *, is_telling: Callable[[str], bool]) -> str:
    """Return the last telling lines of *log* in one line; its last lines where none tells anything."""
    lines = [line.strip()[:LINE_CHARS] for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if is_telling(line)]
    return " | ".join((telling or lines)[-TAIL_LINES:]) or "(nothing)"
