"""One stack per home directory: a lock that the kernel lets go when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

from compliance.errors import LockHeld

LOCK = "lock"
POLL_SECONDS = 0.02


@contextmanager
def hold_lock(home: Path, *, patience: timedelta = timedelta(milliseconds=500)) -> Iterator[None]:
    """Hold the lock of *home* and note this process in it.

    Args:
        patience: How long to wait for it; a glance by ``is_locked`` holds it for an instant too.

    Raises:
        LockHeld: When another stack is open on *home*; the message names its process.
    """
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience.total_seconds()
        while not _acquire(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise LockHeld(
                    f"process {holder} already runs a stack in {home}; use that one, stop it, "
                    "or set COMPLIANCE_HOME to another directory"
                )
            Event().wait(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(home: Path) -> bool:
    """Say whether a living process holds the lock of *home*."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _acquire(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
