"""``compliance migrate throttle``: how fast migrations may go, also while one runs."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.roles import Role
from migrations.throttle.control import change_control, read_control
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_fields, show_json

ANY_TIME = "always"


def throttle(
    ctx: typer.Context,
    max_lag: Annotated[float | None, typer.Option("--max-lag", help="Wait while a secondary is more behind.")] = None,
    min_oplog: Annotated[
        float | None, typer.Option("--min-oplog", help="Wait while it reaches back fewer minutes; 0: never.")
    ] = None,
    batch_seconds: Annotated[float | None, typer.Option("--batch-seconds", help="How long a batch takes.")] = None,
    beside_seconds: Annotated[
        float | None, typer.Option("--beside-seconds", help="How long where others work on the servers.")
    ] = None,
    paused: Annotated[bool | None, typer.Option("--pause/--resume", help="Wait until told otherwise; go on.")] = None,
    window: Annotated[
        str | None, typer.Option("--window", metavar="HH:MM-HH:MM", help=f"Times of day in UTC, or {ANY_TIME}.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what is set; also without any option.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Change how fast migrations may go; one that runs hears of it before its next batch."""
    del show
    given: dict[str, Any] = {"max_lag_seconds": max_lag, "min_oplog_minutes": min_oplog}
    given |= {"batch_seconds": batch_seconds, "beside_seconds": beside_seconds, "paused": paused, "window": window}
    changes = {name: value for name, value in given.items() if value is not None}
    if window == ANY_TIME:
        changes["window"] = None
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        if changes:
            log = AuditLog(services.databases, Cause(channel="cli"))
            by = runtime(ctx).actor(services.settings)
            found = change_control(services.databases, log, changes, by=by, clock=services.clock)
        else:
            found = read_control(services.databases)
    if json:
        show_json(asdict(found))
    else:
        show_fields({**asdict(found), "window": found.window or ANY_TIME, "paused": "yes" if found.paused else "no"})
