"""``compliance migrate new``, ``sum`` and ``heads``: what concerns the folder of scripts, and no database."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.settings import Settings
from migrations.discovery import discover
from migrations.graph import build_graph
from migrations.migrate import FOUNDATION
from migrations.revision import Phase
from migrations.scaffold import write_script
from migrations.sums import FILE, write_sum
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

PHASES = {phase.name.lower(): phase for phase in Phase}
PhaseOption = Annotated[
    str, typer.Option("--phase", metavar="|".join(PHASES), help="Before, beside or after the new application.")
]


def new(
    ctx: typer.Context,
    slug: Annotated[str, typer.Argument(help="A few words: subscription_type.")],
    phase: PhaseOption,
    env: EnvOption = None,
) -> None:
    """Write a script to fill in, and add it to migrations.sum."""
    if phase not in PHASES:
        raise typer.BadParameter(f"is one of {', '.join(PHASES)}", param_hint="--phase")
    sys.stdout.write(f"{write_script(_folder(ctx, env), slug, PHASES[phase])}\n")


def sum_(ctx: typer.Context, env: EnvOption = None) -> None:
    """Write migrations.sum: name and checksum of every script, to be committed with them."""
    folder = _folder(ctx, env)
    revisions = discover(folder)
    build_graph(revisions)
    is_changed = write_sum(folder, revisions)
    sys.stdout.write(f"{folder / FILE}: {len(revisions)} scripts{'' if is_changed else ', as before'}\n")


def heads(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """List the scripts that no other depends on: more than one are branches, which `new` merges."""
    found = build_graph(discover(_folder(ctx, env), foundation=FOUNDATION)).heads()
    if json:
        show_json([{"name": head.name, "summary": head.summary} for head in found])
    else:
        show_table(("head", "what it does"), [(head.name, head.summary) for head in found], empty="no migrations")


def _folder(ctx: typer.Context, profile: str | None) -> Path:
    settings: Settings = runtime(ctx).load(profile)
    return settings.migrations
