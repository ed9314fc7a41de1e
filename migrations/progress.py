"""How far a migration is: what the place of its step says, for people and for machines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import exp
from typing import Any

from compliance.mongo import Databases
from migrations.ledger import left_behind

DOING = "doing"  # of a place: what of it is true for the moment only
SMOOTHED = 20.0  # seconds of which the present rate tells


@dataclass(slots=True)
class Pacer:
    """Tells how many documents a second are done by now, all waiting included: what was fast an hour ago says nothing.

    Attributes:
        since: When the rate was taken last.
        documents: How many had been done then; None before the first time.
    """

    since: datetime
    documents: int | None = None

    def note(self, place: Mapping[str, Any], *, now: datetime) -> dict[str, float]:
        """Return what *place*, which was just reached, says of the rate: ``per_second``."""
        took, self.since = (now - self.since).total_seconds(), now
        known, before = place.get("per_second"), self.documents
        self.documents = place["documents"]
        if took <= 0 or before is None:
            return {}
        rate = (self.documents - before) / took
        weight = 1.0 if known is None else 1 - exp(-took / SMOOTHED)
        return {"per_second": round(weight * rate + (1 - weight) * (known or 0.0), 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step that goes through a collection.

    Attributes:
        what: The step, or the script and the number of the step.
        documents: How many were changed.
        of: How many there were to change when the step began; an estimate, for the application writes meanwhile.
        seconds: How long the batches took, without what they waited.
        per_second: How many documents a second are done by now, with what is waited; None where that is not known.
        phase: Which part of the step this is; empty where it has one.
        waiting: Why it waits; empty while it works.
        unread: Which factors of the throttle cannot be read, and why: they hold nothing back meanwhile.
    """

    what: str
    documents: int = 0
    of: int = 0
    seconds: float = 0.0
    per_second: float | None = None
    phase: str = ""
    waiting: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @classmethod
    def of_place(cls, place: Mapping[str, Any], *, what: str) -> "Progress":
        """Return what the *place* of a step says, and ``doing`` of what the step does at the moment."""
        place = {**place, **place.get(DOING, {})}
        return cls(
            what=what,
            documents=place.get("documents", 0),
            of=place.get("of", 0),
            seconds=place.get("seconds", 0.0),
            per_second=place.get("per_second"),
            phase=place.get("phase", ""),
            waiting=tuple(place.get("waiting", ())),
            unread=tuple(place.get("unread", ())),
        )

    @property
    def rate(self) -> float | None:
        """Documents per second; None before the first batch."""
        if self.per_second is not None:
            return self.per_second or None
        return self.documents / self.seconds if self.seconds and self.documents else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this rate; None while that is not known, as beyond what was estimated."""
        return (self.of - self.documents) / self.rate if self.rate and self.documents <= self.of else None

    @property
    def line(self) -> str:
        """One line for people."""
        if not self.of:
            return self.what
        what = f"{self.what}, {self.phase}" if self.phase else self.what
        done = f"{what}: {self.documents} of {'about ' if self.documents > self.of else ''}{self.of} documents"
        if self.waiting:
            done = f"{done}, waiting: {'; '.join(self.waiting)}"
        elif self.rate is not None:
            done = f"{done}, {self.rate:.0f} a second"
            done += f", {self.seconds_left:.0f} s left" if self.seconds_left is not None else ""
        return f"{done} (the throttle cannot read {'; '.join(self.unread)})" if self.unread else done

    @property
    def fields(self) -> dict[str, Any]:
        """What machines are told."""
        rate, left = self.rate, self.seconds_left
        return {
            "what": self.what,
            "phase": self.phase,
            "documents": self.documents,
            "of": self.of,
            "per_second": None if rate is None else round(rate, 1),
            "seconds_left": None if left is None else round(left, 1),
            "waiting": list(self.waiting),
            "unread": list(self.unread),
        }


Follow = Callable[[Progress], None]


def progress_of(databases: Databases) -> list[Progress]:
    """Return how far the step is that runs, or that was interrupted; nothing where it has no documents."""
    left = left_behind(databases)
    if "of" not in left.get("place", {}):
        return []
    return [Progress.of_place(left["place"], what=f"{left['script']}, step {left['step']}")]
