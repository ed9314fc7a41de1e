"""What every command shares: settings, connections, and how results are shown."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from threading import Lock
from typing import Annotated, Any

import typer
from bson import json_util
from rich.console import Console
from rich.table import Table

from compliance.jobs.job import Job
from compliance.operators import name_operator
from compliance.roles import Role
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.services import Publish, Services, build_services
from worker.telemetry import configure_logging

WIDEST = 10_000

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
EnvOption = Annotated[str | None, typer.Option("--env", metavar="NAME", help="Read NAME.env over the environment.")]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the composition root hands to the commands.

    Attributes:
        load: Returns the settings, read over those of a profile where one is named.
        doorbell: Returns what rings for a job that is in the ledger.
        operator: Who gives the command, as ``--as`` says.
    """

    load: Callable[[str | None], Settings]
    doorbell: Callable[[Addresses], Publish]
    environ: Mapping[str, str]
    operator: str = ""

    def actor(self, settings: Settings) -> str:
        """Return who gives the command, for the audit log: as ``--as`` says, else the settings, else the login.

        Raises:
            InvalidPayload: When that could be more than a login.
        """
        return name_operator(self.operator or settings.operator)

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

    def _publish(self, addresses: Addresses) -> Publish:
        """Return a doorbell that is made at its first use, for many commands publish nothing.

        It is made once, also where the threads of the watcher publish for the first time at once.
        """
        making = Lock()  # ``cache`` alone may call twice
        make = cache(lambda: self.doorbell(addresses))

        def publish(job: Job) -> None:
            with making:
                ring = make()
            ring(job)

        return publish


def runtime(ctx: typer.Context) -> Runtime:
    """Return the runtime of the running command."""
    found: Runtime = ctx.obj
    return found


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
