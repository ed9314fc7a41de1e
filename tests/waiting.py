"""The one way to wait in tests: for a state, with a deadline."""

import time
from collections.abc import Callable
from threading import Event

POLL_SECONDS = 0.02


def wait_until(predicate: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Return as soon as *predicate* holds; fail with *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        Event().wait(POLL_SECONDS)
