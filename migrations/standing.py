"""Where each script stands: folder and history side by side; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from migrations.past import Mark
from migrations.plan import Scripts
from migrations.revision import Revision


class State(StrEnum):
    """What is to be done about a script, in a word."""

    APPLIED = "applied"
    PENDING = "pending"
    LATE = "late"
    STARTED = "half applied"
    DUAL = "both shapes"
    COMPLETING = "completing"
    REVERTING = "half undone"
    EDITED = "edited"
    MISSING = "missing"
    GONE = "gone, accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One script.

    Attributes:
        depends_on: What it depends on directly, declared or by its number.
        by: Who ran it last; None where it never ran.
        at: When that was.
    """

    revision: Revision
    state: State
    depends_on: tuple[str, ...]
    by: str | None
    at: datetime | None


def standings(scripts: Scripts) -> list[Standing]:
    """Return every script of the folder, and every one that left something to undo, in the order to run them."""
    graph = scripts.graph()
    late, missing, edited = scripts.late(graph), scripts.missing(), scripts.edited()
    return [_standing(one, scripts, graph.parents[one.name], (late, missing, edited)) for one in graph.revisions]


def _standing(
    revision: Revision, scripts: Scripts, depends_on: tuple[str, ...], faults: Sequence[Sequence[str]]
) -> Standing:
    trace = scripts.past.traces.get(revision.name)
    late, missing, edited = faults
    if revision.name in missing:
        state = State.MISSING
    elif revision.name in edited:
        state = State.EDITED
    elif trace is not None and trace.mark is not Mark.REVERTED:
        state = State.GONE if trace.is_missed else _MARKED[trace.mark]
    else:
        state = State.LATE if revision.name in late else State.PENDING
    return Standing(
        revision=revision,
        state=state,
        depends_on=depends_on,
        by=trace.by if trace else None,
        at=trace.at if trace else None,
    )


_MARKED = {mark: State[mark.name] for mark in Mark if mark is not Mark.REVERTED}
