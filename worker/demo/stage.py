"""Where the demonstration plays: a home of its own, empty at every start, and settings that reach nothing else."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from celery import Celery

from compliance.clock import Clock
from compliance.datamap.model import DataMap, load_data_map
from compliance.errors import ComplianceError, ConfigurationError, StoreUnavailable
from compliance.jobs.job import FINAL, Job, State
from compliance.jobs.ledger import Ledger
from compliance.mongo import Databases
from compliance.roles import Role
from compliance.settings import Settings
from worker.demo.show import Show
from worker.embedded.home import make_private
from worker.embedded.lock import LOCK, hold_lock
from worker.embedded.orphan import stop_orphan
from worker.services import connect
from worker.up import System

MARKER = ".compliance-demo"
SERVERS = ("mongod-0", "valkey")
PATIENCE = timedelta(seconds=90)
POLL_SECONDS = 0.05
SWEEP_INTERVAL = timedelta(seconds=2)
BATCH_DOCS = 10  # small, so that there is something to follow

T = TypeVar("T")


def clear_home(home: Path) -> None:
    """Make *home* an empty folder for a demonstration; only one that carries our marker is ever emptied.

    Raises:
        ConfigurationError: When something else is there.
        LockHeld: When a demonstration runs there.
    """
    marker = home / MARKER
    if home.exists() and not marker.exists() and any(home.iterdir()):
        raise ConfigurationError(
            f"{home} was not made by `compliance demo` and is left alone; move it away, or set COMPLIANCE_HOME"
        )
    make_private(home)
    marker.touch(mode=0o600)
    with hold_lock(home):
        for name in SERVERS:
            stop_orphan(home / name / "pid", directory=home / name)
        for entry in home.iterdir():
            if entry.name in (MARKER, LOCK):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def own_settings(settings: Settings, home: Path) -> Settings:
    """Return settings for the reference domain on embedded servers in *home*; no address of *settings* is kept.

    The environment is: production refuses embedded servers here as everywhere.
    """
    return Settings.model_validate(
        {
            "environment": settings.environment,
            "mongod": settings.mongod,
            "home": home,
            "sweep_interval": SWEEP_INTERVAL,
            "batch_docs": BATCH_DOCS,
        }
    )


def own_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without any variable of ours, and with an empty file in the place of every mounted secret."""
    ours = [str(field.alias) for field in Settings.model_fields.values()]
    others = {name: value for name, value in environ.items() if name.removesuffix("_FILE") not in ours}
    return others | {f"{name}_FILE": os.devnull for name in ours}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running system, and the hands that the story uses on it.

    Attributes:
        worker: The databases with the rights of a worker.
        auditor: The databases with the rights of an auditor, who can only read.
        service: A Celery client as any other service has one: it knows the broker and nothing of our code.
    """

    system: System
    show: Show
    data_map: DataMap
    worker: Databases
    auditor: Databases
    service: Celery
    clock: Clock
    stop: Event

    def send(self, kind: str, **kwargs: Any) -> None:
        """Ask for work with a message, as another service does."""
        queue = {"erasure": "erasure", "consent": "consent", "export": "bulk"}[kind.partition(".")[0]]
        self.service.send_task(f"compliance.{kind}", kwargs=kwargs, queue=f"compliance.{queue}")

    def job(self, request_id: str) -> Job | None:
        """Return the job of a request, or None while no worker has recorded it."""
        return Ledger(self.auditor).find(request_id)

    def finished(self, request_id: str, *, watch: Callable[[Job], None] = lambda _: None) -> Job:
        """Wait until the job is done and return it; *watch* sees it at every look.

        Raises:
            ComplianceError: When it ended in another way.
        """

        def look() -> Job | None:
            job = self.job(request_id)
            if job is None:
                return None
            watch(job)
            return job if job.state in FINAL else None

        job = self.wait(look, what=f"the end of job {request_id}")
        if job.state is not State.DONE:
            reason = job.error["message"] if job.error else "no reason is recorded"
            raise ComplianceError(f"job {request_id} ended as {job.state.value}: {reason}")
        return job

    def wait(self, find: Callable[[], T | None], *, what: str) -> T:
        """Wait until *find* finds something and return it.

        Raises:
            StoreUnavailable: When a process of the system ends, or nothing is found within 90 seconds.
            KeyboardInterrupt: When the person at the terminal wants to stop.
        """
        deadline = self.clock.now() + PATIENCE
        while (found := find()) is None:
            self.system.group.check()
            if self.stop.wait(POLL_SECONDS):
                raise KeyboardInterrupt
            if self.clock.now() > deadline:
                raise StoreUnavailable(
                    f"{what} did not come within {PATIENCE.total_seconds():.0f} s; see the logs in {self.system.logs}"
                )
        return found


@contextmanager
def open_stage(system: System, *, show: Show, clock: Clock, stop: Event) -> Iterator[Stage]:
    """Open the connections of the story to *system* for the block."""
    worker = connect(system.addresses, Role.WORKER, app_name="compliance-demo")
    auditor = connect(system.addresses, Role.AUDITOR, app_name="compliance-demo")
    service = Celery("music-service", broker=system.addresses.redis_url(), set_as_current=False)
    with worker.client, auditor.client, service:
        yield Stage(
            system=system,
            show=show,
            data_map=load_data_map(system.addresses.settings.data_map),
            worker=worker,
            auditor=auditor,
            service=service,
            clock=clock,
            stop=stop,
        )
