"""``compliance audit incidents``: what was done to the audit database that no process of ours does."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from compliance.audit.incident import find_newest
from compliance.errors import InvalidPayload
from compliance.roles import Role
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def incidents(
    ctx: typer.Context,
    since: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Only those since then; in UTC where no zone is given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest of them.")] = 100,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show the incidents of the audit database, newest last."""
    begin = _in_utc(since) if since is not None else None
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        found = find_newest(services.databases, since=begin, limit=limit + 1)
    shown = found[-limit:]
    if len(found) > limit:
        sys.stderr.write(f"these are the newest {limit}; there are older ones: give --limit\n")
    if json:
        show_json(shown)
        return
    rows = ([item.get(name) for name in ("at", "kind", "what", "_id")] for item in shown)
    show_table(("when", "kind", "what", "id"), rows, empty="no incidents")


def _in_utc(given: datetime) -> datetime:
    try:
        return given.replace(tzinfo=given.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise InvalidPayload("--since: expected a time of the years 1 to 9999 in UTC") from None
