"""Processes that are started again whenever they die, and what a nemesis does to them and to the servers."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pymongo
from deployment import Deployment, Stack
from pymongo.errors import PyMongoError

from compliance.mongo import Client
from worker.embedded import launch
from worker.embedded.process import Server

TESTS = Path(__file__).parent
SHORT_SECONDS = 5  # for the administrator: a primary that sleeps answers nobody


@dataclass(slots=True)
class Supervised:
    """A process, with a log, that lives in a group of its own."""

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it lives; MUST be called in the main thread."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            self.signal(signal.SIGKILL)  # its children, where it left any
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), f"{self.log}.pid", *self.arguments],
                env=dict(self.environ),
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is that of its group."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to it and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def signal_alone(self, number: int) -> None:
        """Send a signal to it and not to its children."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def children(self) -> list[int]:
        """The processes of its pool."""
        try:
            return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []


def crew_of(
    deployment: Deployment, home: Path, *, workers: int, beats: int = 1, watchers: int = 0, **environ: str
) -> list[Supervised]:
    """Return processes of *deployment* with short leases, which know the kinds of ``counting``; none is started."""
    celery = [sys.executable, "-m", "celery", "-A", "storm_app"]
    pool = ["worker", "--concurrency=2", "--without-mingle", "--without-gossip"]
    commands = {f"worker-{n}": [*celery, *pool, f"-n=worker-{n}@%h"] for n in range(1, workers + 1)}
    commands |= {f"beat-{n}": [*celery, "beat"] for n in range(1, beats + 1)}
    commands |= {f"watcher-{n}": [sys.executable, "-m", "worker", "watcher"] for n in range(1, watchers + 1)}
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        "COMPLIANCE_SWEEP_SECONDS": "1",
        "COMPLIANCE_LEASE_SECONDS": "3",
        **deployment.environ(home),
        **environ,
    }
    return [Supervised(name, command, environ, home / f"{name}.log") for name, command in commands.items()]


@contextmanager
def supervised(processes: Sequence[Supervised]) -> Iterator[None]:
    """Start *processes*; kill them when the block ends."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            if process.process is not None:
                process.signal(signal.SIGKILL)
                process.process.wait(30)


@dataclass(slots=True)
class Nemesis:
    """Hurts the processes and servers of one system, as *rng* says; everything comes back.

    MUST be used in the main thread.
    """

    rng: random.Random
    stack: Stack
    admin: Client
    processes: Sequence[Supervised]
    done: Counter[str] = field(default_factory=Counter)
    asleep: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def strike(self) -> None:
        """Do one thing."""
        acts = {
            self._kill_group: 25,
            self._kill_alone: 5,
            self._kill_child: 15,
            self._put_to_sleep: 20,
            self._end: 8,
            self._kill_valkey: 7,
            self._stop_valkey: 4,
            self._kill_primary: 5,
            self._stop_primary: 4,
            self._step_down: 8,
        }
        act = self.rng.choices(list(acts), list(acts.values()))[0]
        self.done[act.__name__.strip("_")] += 1
        act()

    def mend(self, *, all_of_it: bool = False) -> None:
        """Wake what slept long enough, start what died."""
        now = time.monotonic()
        for until, wake in tuple(self.asleep):
            if all_of_it or until <= now:
                wake()
                self.asleep.remove((until, wake))
        for process in self.processes:
            process.start()
        for server in self.stack.servers:
            if server.pid is None:
                server.start()

    def _any(self) -> Supervised:
        workers = [process for process in self.processes if process.name.startswith("worker")]
        others = [process for process in self.processes if process not in workers]
        return self.rng.choice(workers if self.rng.random() < 0.7 else others)

    def _kill_group(self) -> None:
        self._any().signal(signal.SIGKILL)

    def _kill_alone(self) -> None:
        self._any().signal_alone(signal.SIGKILL)

    def _kill_child(self) -> None:
        children = self._any().children()
        if children:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(children), signal.SIGKILL)

    def _put_to_sleep(self) -> None:
        process = self._any()
        process.signal(signal.SIGSTOP)
        self._later(lambda: process.signal(signal.SIGCONT))

    def _end(self) -> None:
        self._any().signal_alone(signal.SIGTERM)

    def _kill_valkey(self) -> None:
        self.stack.valkey.kill()

    def _stop_valkey(self) -> None:
        self._stop(self.stack.valkey)

    def _kill_primary(self) -> None:
        primary = self._primary()
        if primary is not None:
            primary.kill()

    def _stop_primary(self) -> None:
        primary = self._primary()
        if primary is not None:
            self._stop(primary)

    def _step_down(self) -> None:
        with suppress(PyMongoError), pymongo.timeout(SHORT_SECONDS):
            self.admin.admin.command({"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 2, "force": True})

    def _primary(self) -> Server | None:
        with suppress(PyMongoError), pymongo.timeout(SHORT_SECONDS):
            self.admin.admin.command("ping")
        address = self.admin.primary
        return next((node for node in self.stack.mongods if address and node.spec.port == address[1]), None)

    def _stop(self, server: Server) -> None:
        pid = server.pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            self._later(lambda: self._wake(server, pid))

    def _wake(self, server: Server, pid: int) -> None:
        if server.pid == pid:
            os.kill(pid, signal.SIGCONT)

    def _later(self, wake: Callable[[], None]) -> None:
        self.asleep.append((time.monotonic() + self.rng.uniform(1, 8), wake))
