"""Servers that outlived their supervisor: found by the process id they noted, stopped before the next start."""

import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from threading import Event

from compliance.errors import StoreUnavailable

PROC = Path("/proc")
POLL_SECONDS = 0.02
GRACE = timedelta(seconds=20)
LAST_RESORT = timedelta(seconds=5)


def stop_orphan(pid_file: Path, *, directory: Path, grace: timedelta = GRACE) -> None:
    """Stop the process noted in *pid_file* if it still is a server on *directory*, and wait until it is gone.

    A process id is used again by the kernel, so one whose command line does not name *directory* is left alone.

    Raises:
        StoreUnavailable: When it does not even go by force.
    """
    pid = read_pid(pid_file)
    if pid is not None:
        if is_server(pid, directory=directory):
            _signal(pid, signal.SIGTERM)
            if not _gone_within(pid, grace, directory=directory):
                _signal(pid, signal.SIGKILL)
        if not _gone_within(pid, LAST_RESORT, directory=directory) and is_server(pid, directory=directory):
            raise StoreUnavailable(f"process {pid} still uses {directory} and cannot be stopped; stop it yourself")
    pid_file.unlink(missing_ok=True)


def read_pid(pid_file: Path) -> int | None:
    """Return the process id noted in *pid_file*, or None where there is none."""
    try:
        return int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def is_server(pid: int, *, directory: Path) -> bool:
    """Say whether process *pid* lives and was started on *directory*; a zombie does not live."""
    return any(_names(argument, directory) for argument in _arguments(pid))


def _names(argument: str, directory: Path) -> bool:
    return argument == str(directory) or argument.startswith(f"{directory}/")


def _arguments(pid: int) -> list[str]:
    if PROC.joinpath("self").exists():
        try:
            line = PROC.joinpath(str(pid), "cmdline").read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            return []
        return [argument for argument in line.split("\0") if argument]
    listing = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout.split()


def _gone_within(pid: int, grace: timedelta, *, directory: Path) -> bool:
    deadline = time.monotonic() + grace.total_seconds()
    while not _is_gone(pid, directory=directory):
        if time.monotonic() >= deadline:
            return False
        Event().wait(POLL_SECONDS)
    return True


def _is_gone(pid: int, *, directory: Path) -> bool:
    arguments = _arguments(pid)
    if arguments:
        return not any(_names(argument, directory) for argument in arguments)
    # A process loses its command line before it closes its port; that is done when its last thread is a zombie.
    try:
        stat = PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace")
        threads = len(list(PROC.joinpath(str(pid), "task").iterdir()))
    except OSError:
        return True
    return threads <= 1 and stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
