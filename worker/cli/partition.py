"""``compliance partition``: share a collection out among time buckets, and drop old ones."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from compliance.roles import Role
from migrations.context import Context
from migrations.migrate import build_runner
from migrations.ops import partition
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

app = typer.Typer(
    help="Share a collection out among time buckets, and drop old ones.",
    epilog="Example: compliance partition plan analytics --field timestamp",
)

CollectionArgument = Annotated[str, typer.Argument(help="A collection of documents that are written once.")]
FieldOption = Annotated[str, typer.Option("--field", help="The field with the date.")]
EveryOption = Annotated[str, typer.Option("--every", help="How long a bucket is: day, month or year.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, write nothing.")]


@app.command(epilog="Example: compliance partition plan analytics --field timestamp --every month")
def plan(
    ctx: typer.Context,
    collection: CollectionArgument,
    field: FieldOption,
    every: EveryOption = "month",
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show which buckets there would be, with how many documents; writes nothing."""
    scheme = partition.make_scheme(collection, field=field, every=every)
    lines = _perform(ctx, env, collection, lambda hands: partition.apply(hands, scheme), dry_run=True)
    _show(lines, as_json=json)


@app.command(epilog="Example: compliance partition apply analytics --field timestamp --every month")
def apply(
    ctx: typer.Context,
    collection: CollectionArgument,
    field: FieldOption,
    every: EveryOption = "month",
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Create the buckets that are needed and move documents into them; run it again for those that come later."""
    scheme = partition.make_scheme(collection, field=field, every=every)
    lines = _perform(ctx, env, collection, lambda hands: partition.apply(hands, scheme))
    _show(lines, as_json=json)


@app.command(epilog="Example: compliance partition drop analytics --keep 24 --dry-run")
def drop(
    ctx: typer.Context,
    collection: CollectionArgument,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many buckets to keep beside the present one.")],
    dry_run: DryRunOption = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Drop old buckets whole, each with an entry in the audit log; refused where a legal hold is in one."""
    lines = _perform(ctx, env, collection, lambda hands: partition.drop(hands, collection, keep=keep), dry_run=dry_run)
    _show(lines, as_json=json)


def _perform(
    ctx: typer.Context, env: str | None, collection: str, change: Callable[[Context], None], *, dry_run: bool = False
) -> list[str]:
    lines: list[str] = []
    with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
        runner = build_runner(
            services.settings, services.databases, actor=runtime(ctx).actor(services.settings), report=lines.append
        )
        runner.perform(f"partition.{collection}", change, dry_run=dry_run)
    return lines


def _show(lines: list[str], *, as_json: bool) -> None:
    if as_json:
        show_json({"lines": lines})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
