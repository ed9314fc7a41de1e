"""``compliance datamap diff``: what another data map means for people."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compliance.datamap.diff import Effect, compare
from compliance.datamap.model import load_data_map
from compliance.errors import ExitCode
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json


def diff(
    ctx: typer.Context,
    old: Annotated[Path, typer.Argument(help="The map before, a file.")],
    new: Annotated[Path | None, typer.Argument(help="The map after; COMPLIANCE_DATA_MAP if absent.")] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Say what changes for people between two data maps; exit 3 when less is erased than before, or may be."""
    before, after = load_data_map(old), load_data_map(new or runtime(ctx).load(env).data_map)
    changes = list(compare(before, after))
    if json:
        digests = {"old": before.digest, "new": after.digest}
        show_json({**digests, "changes": [{**asdict(change), "text": str(change)} for change in changes]})
    else:
        lines = (f"{change.effect:<4}  {change}\n" for change in changes)
        sys.stdout.write("".join(lines) or "the same is erased as before\n")
    if any(change.effect is Effect.LESS for change in changes):
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))
