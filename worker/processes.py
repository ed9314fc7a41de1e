"""The processes of a deployment: one table, which the Procfile, the compose file and ``compliance up`` agree with."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from compliance.errors import StoreUnavailable
from worker.embedded import launch

PROCESSES: dict[str, tuple[str, ...]] = {
    "worker": ("celery", "-A", "worker", "worker"),
    "beat": ("celery", "-A", "worker", "beat"),
    "watcher": ("compliance", "watcher"),
    "reconciler": ("compliance", "reconciler"),
    "flower": ("celery", "-A", "worker", "flower"),
}
MODULES = {"celery": "celery", "compliance": "worker"}
STOP_GRACE = timedelta(seconds=30)


@dataclass(slots=True)
class Child:
    """One process that this one started and ends."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Group:
    """The processes that ``run_processes`` started."""

    children: list[Child] = field(default_factory=list)

    def check(self) -> None:
        """Return if all are alive.

        Raises:
            StoreUnavailable: Naming the one that ended, and its log.
        """
        for child in self.children:
            code = child.process.poll()
            if code is not None:
                raise StoreUnavailable(f"{child.name} ended with exit code {code}; see {child.log}")

    def stop(self) -> None:
        """End all: each may finish its present batch."""
        for child in reversed(self.children):
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        for child in reversed(self.children):
            try:
                child.process.wait(STOP_GRACE.total_seconds())
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def command(name: str, extra: Sequence[str] = ()) -> list[str]:
    """Return how to start the process *name* with this interpreter, whatever packages are in the present folder."""
    program, *arguments = PROCESSES[name]
    return [sys.executable, "-P", "-m", MODULES[program], *arguments, *extra]


@contextmanager
def run_processes(
    names: Sequence[str],
    *,
    environ: Mapping[str, str],
    logs: Path,
    extra: Mapping[str, Sequence[str]] | None = None,
    own: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Group]:
    """Run processes until the block ends; their output is appended to ``<name>.log`` in *logs*.

    MUST be called in the main thread: on Linux each process ends with the thread that started it.

    Args:
        names: Which of ``PROCESSES``.
        environ: Their environment.
        logs: An existing folder.
        extra: More arguments, by name.
        own: More of the environment, by name.
    """
    group = Group()
    try:
        for name in names:
            log = logs / f"{name}.log"
            arguments = command(name, (extra or {}).get(name, ()))
            its_environ = {**environ, **(own or {}).get(name, {})}
            group.children.append(Child(name, _start(arguments, its_environ, log, logs / f"{name}.pid"), log))
        yield group
    finally:
        group.stop()


def _start(arguments: Sequence[str], environ: Mapping[str, str], log: Path, pid_file: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(pid_file), *arguments],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C of the terminal reaches this process only
        )
