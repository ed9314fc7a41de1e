"""``compliance migrate``: apply, undo and list migrations."""

import sys
from typing import Annotated

import typer

from compliance.errors import ExitCode
from compliance.roles import Role
from migrations.migrate import build_runner
from migrations.revision import Revision
from migrations.runner import Runner
from worker.cli.lint import lint
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table
from worker.services import Services

app = typer.Typer(help="Apply, undo, list and check migrations.", epilog="Example: compliance migrate up --dry-run")
app.command("lint", epilog="Example: compliance migrate lint --since origin/main --sarif lint.sarif")(lint)

TargetArgument = Annotated[str, typer.Argument(help="Stop at this migration: 004, 004_pre, a full name; or zero.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Stop at this migration: 004, 004_pre or a full name.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, write nothing.")]


@app.command(epilog="Example: compliance migrate up --env production --dry-run")
def up(
    ctx: typer.Context,
    to: ToOption = None,
    dry_run: DryRunOption = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Apply what is pending, in order."""
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        done = _runner(services).up(to, dry_run=dry_run)
    _show("to apply" if dry_run else "applied", done, as_json=json)


@app.command(epilog="Example: compliance migrate down 003")
def down(
    ctx: typer.Context,
    target: TargetArgument,
    dry_run: DryRunOption = False,
    drop_data: Annotated[bool, typer.Option("--drop-data", help="Drop collections that hold documents, too.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Undo migrations until TARGET is the last applied one."""
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        done = _runner(services).down(target, dry_run=dry_run, drop_data=drop_data)
    _show("to undo" if dry_run else "undone", done, as_json=json)


@app.command(epilog="Example: compliance migrate status --check")
def status(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 when migrations are pending.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List every migration and whether it is applied."""
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        runner = _runner(services)
        pending = {revision.name for revision in runner.pending()}
        rows = [
            (revision.name, "pending" if revision.name in pending else "applied", revision.summary)
            for revision in runner.revisions
        ]
    if json:
        show_json([{"name": name, "state": state, "summary": summary} for name, state, summary in rows])
    else:
        show_table(("migration", "state", "what it does"), rows, empty="the migrations folder is empty")
    if check and pending:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _runner(services: Services) -> Runner:
    return build_runner(services.settings, services.databases, actor="cli", report=_report)


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _show(verb: str, done: tuple[Revision, ...], *, as_json: bool) -> None:
    if as_json:
        show_json({"verb": verb, "revisions": [revision.name for revision in done]})
    else:
        sys.stdout.write(f"{len(done)} {verb}\n" if done else "nothing to do\n")
