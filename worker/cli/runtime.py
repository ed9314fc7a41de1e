"""What every command shares: settings, connections, and how results are shown."""

import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from threading import Lock
from typing import Annotated, Any

import typer
from bson import json_util
from celery import Celery
from rich.console import Console
from rich.table import Table

from compliance.errors import ComplianceError, ConfigurationError, ExitCode, LockHeld
from compliance.jobs.job import FINAL, Job, State
from compliance.roles import Role
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.doorbell import publisher
from worker.intake import submit
from worker.job import progress_text
from worker.services import Services, build_services
from worker.tasks import JOBS
from worker.telemetry import configure_logging

POLL = timedelta(milliseconds=200)
WAIT_LIMIT = timedelta(minutes=10)
WIDEST = 10_000
TELL_AFTER = timedelta(seconds=10)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
EnvOption = Annotated[str | None, typer.Option("--env", metavar="NAME", help="Read NAME.env over the environment.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until the job is done.")]
RequestIdOption = Annotated[
    str | None, typer.Option("--request-id", help="Idempotency key: the same key twice is one job.")
]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the composition root hands to the commands."""

    load: Callable[[str | None], Settings]
    application: Callable[[Addresses], Celery]
    environ: Mapping[str, str]

    def addresses(self, profile: str | None = None) -> Addresses:
        """Return where the servers are."""
        settings = self.load(profile)
        configure_logging(settings.log_level if settings.log_level != "INFO" else "WARNING")
        return Addresses(settings)

    @contextmanager
    def services(self, role: Role = Role.WORKER, *, profile: str | None = None) -> Iterator[Services]:
        """Open services as *role* for the block."""
        addresses = self.addresses(profile)
        services = build_services(addresses, role, publish=self._publish(addresses))
        with services.databases.client:
            yield services

    def _publish(self, addresses: Addresses) -> Callable[[Job], None]:
        """Return a publisher whose application is made at its first use, for many commands publish nothing.

        It is made once, also where the threads of the watcher publish for the first time at once.
        """
        making = Lock()  # ``cache`` alone may call twice
        make = cache(lambda: publisher(self.application(addresses)))

        def publish(job: Job) -> None:
            with making:
                ring = make()
            ring(job)

        return publish


def runtime(ctx: typer.Context) -> Runtime:
    """Return the runtime of the running command."""
    found: Runtime = ctx.obj
    return found


def enqueue(services: Services, kind: str, values: Mapping[str, Any], *, request_id: str | None) -> Job:
    """Make a job durable, then ring the doorbell; without the broker the sweeper does."""
    given = {name: value for name, value in values.items() if value is not None}
    job = submit(JOBS[kind], given, request_id=request_id or f"cli-{uuid.uuid4()}", origin="cli", services=services)
    services.publish(job)
    return job


def wait_for(services: Services, job: Job) -> Job:
    """Wait until *job* is done, showing its progress when stderr is a terminal.

    Raises:
        ConfigurationError: When the ledger lost it.
        LockHeld: When it is not done after ten minutes; it goes on without us.
    """
    began = services.clock.now()
    is_told = False
    console = Console(stderr=True)
    with console.status(f"{job.kind}: waiting for a worker") as status:
        while True:
            found = services.ledger.find(job.request_id)
            if found is None:
                raise ConfigurationError(f"job {job.request_id} is not in the ledger of this database")
            if found.state in FINAL:
                return found
            status.update(f"{job.kind}: {progress_text(found.checkpoint) or found.state.value}")
            waited = services.clock.now() - began
            if found.state is State.QUEUED and waited > TELL_AFTER and not is_told:
                is_told = True
                sys.stderr.write(f"{job.request_id} is still waiting: no worker has taken it; is one running?\n")
            if waited > WAIT_LIMIT:
                raise LockHeld(
                    f"job {job.request_id} is {found.state.value} after {WAIT_LIMIT.total_seconds():.0f} s and goes on "
                    f"without this command; see `compliance jobs show {job.request_id}`; is a worker running?"
                )
            services.clock.sleep(POLL)


def finish(job: Job, *, as_json: bool) -> None:
    """Show *job* and end the command with the exit code of its state."""
    if as_json:
        show_json(describe(job))
    else:
        show_fields(describe(job))
    if job.state is State.DONE or job.state not in FINAL:
        return
    if job.error:
        sys.stderr.write(f"error: {job.error['message']}\n")
    raise typer.Exit(int(exit_code(job)))


def exit_code(job: Job) -> ExitCode:
    """Return the exit code that a command gives for a job that did not succeed."""
    for known in _subclasses(ComplianceError):
        if job.error and known.__name__ == job.error["code"]:
            return known.exit_code
    return ExitCode.USAGE if job.state is State.REJECTED else ExitCode.UNEXPECTED


def _subclasses(parent: type[ComplianceError]) -> Iterator[type[ComplianceError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


def describe(job: Job) -> dict[str, Any]:
    """Return *job* as commands show it."""
    return {
        "request_id": job.request_id,
        "kind": job.kind,
        "state": job.state.value,
        "progress": progress_text(job.checkpoint),
        "asked": job.asked.value if job.asked else None,
        "origin": job.origin,
        "sender": job.sender,
        "trace_id": job.terms.trace_id,
        "attempts": job.attempts,
        "owner": job.owner,
        "lease_until": job.lease_until,
        "run_at": job.run_at,
        "priority": job.terms.priority,
        "deadline": job.terms.deadline,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "result": job.result,
        "result_digest": job.result_digest,
        "error": job.error,
    }


def show_json(value: Any) -> None:
    """Print *value* as relaxed Extended JSON, one line."""
    sys.stdout.write(json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False) + "\n")


def show_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing, a line per field that says something."""
    width = max(map(len, fields))
    for name, value in fields.items():
        if value not in (None, {}, [], ""):
            sys.stdout.write(f"{name.ljust(width)}  {plain(value)}\n")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table that fits the terminal, elsewhere one line per row; without rows the sentence *empty*."""
    listed = [[plain(cell) for cell in row] for row in rows]
    if not listed:
        sys.stdout.write(f"{empty}\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDEST)  # what reads it reads line by line
    console.print(table, markup=False)


def plain(value: Any) -> str:
    """Return *value* as people read it."""
    if value in ({}, [], ()):
        return "none"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "" if value is None else str(value)
