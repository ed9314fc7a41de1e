"""``compliance migrate plan``: the exact commands a run would send, and what they cost; nothing is changed."""

import sys
from typing import Annotated

import typer

from migrations.preview import Preview, describe, lines
from migrations.wish import Wish
from worker.cli.migrate_history import open_runner
from worker.cli.runtime import EnvOption, JsonOption, show_json

ToOption = Annotated[str | None, typer.Option("--to", help="Stop at this migration: 004, 004_pre or a full name.")]
OnlyOption = Annotated[str | None, typer.Option("--only", metavar="NAME", help="This migration alone.")]
DownOption = Annotated[
    str | None, typer.Option("--down", metavar="TARGET", help="The way down until TARGET, or zero, is left.")
]
DropOption = Annotated[bool, typer.Option("--drop-data", help="With --down: collections that hold documents go, too.")]


def plan(
    ctx: typer.Context,
    to: ToOption = None,
    only: OnlyOption = None,
    down: DownOption = None,
    drop_data: DropOption = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show each step of what is pending: its commands in canonical Extended JSON, documents, time, oplog, locks."""
    if (to is not None) + (only is not None) + (down is not None) > 1:
        raise typer.BadParameter("give one of --to, --only and --down")
    with open_runner(ctx, env) as runner:
        if down is not None:
            show_preview("to undo", runner.preview_down(down, drop_data=drop_data), as_json=json)
        else:
            show_preview("to apply", runner.preview(Wish(target=to, only=only)), as_json=json)


def show_preview(verb: str, preview: Preview, *, as_json: bool) -> None:
    """Print what a run would do."""
    names = [revision.name for revision in preview.revisions]
    if as_json:
        show_json({"verb": verb, "revisions": names, "plan": describe(preview)})
        return
    for line in lines(preview):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len(names)} {verb}\n" if names else "nothing to do\n")
