"""``compliance migrate rehearse``: try pending migrations on a copy of the database."""

import sys
from typing import Annotated

import typer

from compliance.errors import ExitCode
from migrations.rehearsal import Outcome, rehearse
from migrations.rehearsal.rehearse import describe
from migrations.wish import Wish
from worker.cli.migrate_history import open_runner
from worker.cli.runtime import EnvOption, JsonOption, show_json, show_table

DOCUMENTS = 1000

DocumentsOption = Annotated[
    int, typer.Option("--documents", metavar="N", min=1, help="Copy at most N documents of each collection.")
]
ProductionOption = Annotated[
    bool, typer.Option("--in-production", help="Copy documents of people beside the originals in production, too.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Stop at this migration: 004, 004_pre or a full name.")]


def rehearse_(
    ctx: typer.Context,
    documents: DocumentsOption = DOCUMENTS,
    to: ToOption = None,
    in_production: ProductionOption = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Apply what is pending on a copy, verify, undo, compare, apply again; exit 3 where something is not restored."""
    with open_runner(ctx, env) as runner:
        outcome = rehearse(runner, documents=documents, wish=Wish(target=to), in_production=in_production)
    if json:
        show_json(describe(outcome))
    else:
        _show(outcome)
    if not outcome.is_good:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _show(outcome: Outcome) -> None:
    rows = [
        (script.name, timing.what, f"{timing.seconds:.2f}", f"{timing.whole_seconds:.1f}")
        for script in outcome.scripts
        for timing in script.timings
    ]
    show_table(("migration", "step", "seconds here", "seconds in full, about"), rows, empty="nothing is pending")
    for script in outcome.scripts:
        if script.irreversible:
            sys.stdout.write(f"{script.name} cannot be undone: {script.irreversible}\n")
        for name, what in script.differs_in.items():
            sys.stdout.write(f"{script.name} does not restore {name}: {what}\n")
    for problem in outcome.problems:
        sys.stdout.write(f"{problem}\n")
    if outcome.stopped:
        sys.stdout.write(f"stopped at {outcome.stopped}\n")
    undone = sum(script.is_undone for script in outcome.scripts)
    sys.stdout.write(f"{len(outcome.scripts)} applied, {undone} undone and applied again; the copy is gone\n")
