"""A new script: the next number, what it depends on, and the parts that every script has."""

import re
from collections.abc import Sequence
from pathlib import Path

from compliance.errors import MigrationError, RejectedError
from migrations.discovery import discover
from migrations.governance import blank
from migrations.graph import build_graph
from migrations.revision import Phase, Revision
from migrations.sums import write_sum

LAST_NUMBER = 999
_SLUG = re.compile(r"[a-z][a-z0-9_]*")

TEMPLATE = '''"""{summary}"""

from migrations.context import Context

OWNER = "{owner}"
REVIEWED_BY = "{reviewed_by}"
{depends_on}

def up(ctx: Context) -> None:
    """{up}"""
    raise NotImplementedError


def down(ctx: Context) -> None:
    """Undo that; or, where it cannot be undone, write IRREVERSIBLE = "why" instead of this function."""
    raise NotImplementedError
'''
UP = {
    Phase.PRE: "Add what the new application needs, so that the old one keeps working.",
    Phase.DATA: "Change documents in batches, so that both applications keep working.",
    Phase.POST: "Require or remove what the old application is no longer there for.",
}


def write_script(folder: Path, slug: str, phase: Phase) -> Path:
    """Add a script to *folder* and to its ``migrations.sum``; return where it is.

    It fails until it is written, and ``lint`` finds it until then. Where the folder has several heads, it depends on
    all of them, and so merges them.

    Raises:
        RejectedError: When *slug* cannot be part of a file name.
        MigrationError: When the folder is not in order, is full, or cannot be written to.
    """
    if not _SLUG.fullmatch(slug):
        raise RejectedError(f"{slug!r} is no slug: write a few words in lower case, such as subscription_type")
    revisions = discover(folder)
    path = folder / f"v{_next_number(revisions):03d}_{phase.name.lower()}_{slug}.py"
    heads = [head.name for head in build_graph(revisions).heads()]
    text = TEMPLATE.format(
        summary=f"{slug.replace('_', ' ').capitalize()}: {blank.SUMMARY}",
        owner=blank.OWNER,
        reviewed_by=blank.REVIEWED_BY,
        up=UP[phase],
        depends_on=f"DEPENDS_ON = {_tuple(heads)}\n" if len(heads) > 1 else "",
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        raise MigrationError(f"{path.name} cannot be written in the migrations folder {folder.name}") from None
    write_sum(folder, discover(folder))
    return path


def _next_number(revisions: Sequence[Revision]) -> int:
    number = max((revision.number for revision in revisions), default=0) + 1
    if number > LAST_NUMBER:
        raise MigrationError(f"number {LAST_NUMBER} is taken; no number is left for another script")
    return number


def _tuple(names: Sequence[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ")"
