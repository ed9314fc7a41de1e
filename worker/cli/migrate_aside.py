"""``compliance migrate approve`` and ``retry``: what a migration waits for a person with."""

import sys
from typing import Annotated

import typer

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.errors import ExitCode
from compliance.roles import Role
from migrations.ops import gate
from worker.cli.migrate_history import open_runner
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json


def approve(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The gate that a migration waits at.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the audit log.")],
    env: EnvOption = None,
) -> None:
    """Open a gate for the migration that waits at it, this once."""
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        log = AuditLog(services.databases, Cause(channel="cli"))
        gate.approve(
            services.databases,
            log,
            name=name,
            reason=reason,
            by=runtime(ctx).actor(services.settings),
            clock=services.clock,
        )
    sys.stdout.write(f"approved: {name}; run `compliance migrate up` again\n")


def retry(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Try documents again that migrations could not change and set aside; exit 5 while some are left."""
    with open_runner(ctx, env) as runner:
        settled, left = runner.retry_set_aside()
    if json:
        show_json({"settled": settled, "left": left})
    else:
        sys.stdout.write(f"{settled} settled, {left} left\n" if settled or left else "nothing to do\n")
    if left:
        raise typer.Exit(int(ExitCode.PARTIAL))
