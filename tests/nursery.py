"""Attempts at jobs in child processes, each with one fault that is placed at its n-th command to MongoDB."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from every import LANES

TESTS = Path(__file__).parent
STARTED, SUCCEEDED = "started", "succeeded"
KILL, STOP, STEP_DOWN = "kill", "stop", "step_down"
UNTOUCHED, FAILED, REACHED = 0, 1, 3  # exit codes of an attempt that ended by itself
LIMIT_SECONDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at which command.

    Attributes:
        at: Number of the command, from 1.
        only: Counts commands of this name only.
        moment: Before it is sent (``started``), or when it is answered (``succeeded``).
        fate: What happens: the process is killed or stopped, or the primary steps down.
        is_fenced: Whether the attempt compares the fence, as it must.
    """

    at: int
    moment: str
    fate: str
    only: str | None = None
    is_fenced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended, or that it was stopped."""

    pid: int
    exit_code: int | None

    @property
    def is_stopped(self) -> bool:
        """Whether it can be woken."""
        return self.exit_code is None

    @property
    def was_reached(self) -> bool:
        """Whether the fault happened; where not, the attempt had fewer commands."""
        return self.exit_code != UNTOUCHED


@dataclass(frozen=True, slots=True)
class Nursery:
    """A process that forks attempts, at jobs of kinds that no other *lane* has."""

    process: subprocess.Popen[str]
    lane: int

    def attempt(self, kind: str, request_id: str, fault: Fault) -> End:
        """Run one attempt at the job *request_id*; return when it ended or was stopped."""
        message = {"kind": kind, "request_id": request_id, "lane": self.lane}
        return self._ask({"message": message, "fault": asdict(fault)})

    def take(self, task: str, values: Mapping[str, Any], request_id: str, fault: Fault) -> End:
        """Run one attempt at a job of the kind *task*; return when it ended or was stopped."""
        message = {"task": task, "values": dict(values), "request_id": request_id}
        return self._ask({"message": message, "fault": asdict(fault)})

    def wake(self, stopped: End) -> End:
        """Continue a stopped attempt; return when it ended."""
        return self._ask({"wake": stopped.pid})

    def _ask(self, what: Mapping[str, Any]) -> End:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_SECONDS)
        assert ready, f"an attempt does not end within {LIMIT_SECONDS} s"
        return End(**json.loads(self.process.stdout.readline()))


@contextmanager
def open_nursery(environ: Mapping[str, str], lane: int) -> Iterator[Nursery]:
    """Start a process that forks attempts on the database of *environ*; it and they end with the block."""
    process = subprocess.Popen(
        [sys.executable, TESTS / "attempting.py"],
        env={**environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Nursery(process, lane)
    finally:
        process.communicate()


@contextmanager
def open_nurseries(environ: Mapping[str, str], *, lanes: int = LANES) -> Iterator[tuple[Nursery, ...]]:
    """Start a nursery for each lane; they end with the block."""
    with ExitStack() as cleanup:
        yield tuple(cleanup.enter_context(open_nursery(environ, lane)) for lane in range(lanes))
