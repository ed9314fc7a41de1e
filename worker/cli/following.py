"""How far a migration is, as a bar on stderr where that is a terminal; elsewhere the lines of the runner say it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from migrations.progress import Follow, Progress


@contextmanager
def followed() -> Iterator[Follow | None]:
    """Show what the block is told; None where nobody would see a bar."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def follow(progress: Progress) -> None:
            waiting = f" (waiting: {'; '.join(progress.waiting)})" if progress.waiting else ""
            unread = f" (the throttle cannot read {'; '.join(progress.unread)})" if progress.unread else ""
            total = progress.of or None
            bar.update(task, description=f"{progress.what}{waiting}{unread}", completed=progress.documents, total=total)

        yield follow
