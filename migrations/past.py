"""What the history says of each script, folded from its events; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class Mark(StrEnum):
    """How far a script is."""

    STARTED = "started"
    DUAL = "dual"
    COMPLETING = "completing"
    APPLIED = "applied"
    REVERTING = "reverting"
    REVERTED = "reverted"


OPEN = (Mark.DUAL, Mark.COMPLETING)  # an online change that is neither completed nor rolled back
REPAIRED = "repaired"  # the one event that leaves a script as far as it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of one script.

    Attributes:
        checksum: That of the script as it was run last, or as a person accepted it since.
        source: Under which id its text is kept; None where the event is older than that.
        is_missed: Whether a person accepted that it is no longer in the folder.
    """

    name: str
    mark: Mark
    checksum: str
    source: str | None
    by: str
    at: datetime
    is_missed: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """The last state of every script that ever ran, by name."""

    traces: Mapping[str, Trace]

    @property
    def applied(self) -> dict[str, str]:
        """The checksum of every applied script by name; one that is half undone is not applied."""
        return {name: trace.checksum for name, trace in self.traces.items() if trace.mark is Mark.APPLIED}

    @property
    def open(self) -> dict[str, str]:
        """The checksum of every online change whose two shapes are kept in step, by name."""
        return {name: trace.checksum for name, trace in self.traces.items() if trace.mark in OPEN}

    @property
    def begun(self) -> frozenset[str]:
        """The name of every script that left something to undo: applied, half applied or half undone."""
        return frozenset(name for name, trace in self.traces.items() if trace.mark is not Mark.REVERTED)


def fold(events: Iterable[Mapping[str, Any]]) -> Past:
    """Return what *events*, oldest first, leave."""
    traces: dict[str, Trace] = {}
    for event in events:
        before = traces.get(event["revision"])
        source = event.get("source") or (before.source if before else None)
        if event["event"] == REPAIRED:
            if before is not None:
                is_missed = event["fault"] == "missing"
                traces[before.name] = replace(before, checksum=event["checksum"], source=source, is_missed=is_missed)
            continue
        traces[event["revision"]] = Trace(
            name=event["revision"],
            mark=Mark(event["event"]),
            checksum=event["checksum"],
            source=source,
            by=event["by"],
            at=event["at"],
        )
    return Past(traces)
