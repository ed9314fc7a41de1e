"""How far a migration is: what the place of its step says, for people and for machines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compliance.mongo import Databases
from migrations.ledger import left_behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step that goes through a collection.

    Attributes:
        what: The step, or the script and the number of the step.
        documents: How many were changed.
        of: How many there were to change when the step began; an estimate, for the application writes meanwhile.
        seconds: How long the batches took, without what they waited.
        waiting: Why it waits; empty while it works.
        unread: Which factors of the throttle cannot be read, and why: they hold nothing back meanwhile.
    """

    what: str
    documents: int = 0
    of: int = 0
    seconds: float = 0.0
    waiting: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @classmethod
    def of_place(cls, place: Mapping[str, Any], *, what: str) -> "Progress":
        """Return what the *place* of a step says."""
        return cls(
            what=what,
            documents=place.get("documents", 0),
            of=place.get("of", 0),
            seconds=place.get("seconds", 0.0),
            waiting=tuple(place.get("waiting", ())),
            unread=tuple(place.get("unread", ())),
        )

    @property
    def rate(self) -> float | None:
        """Documents per second; None before the first batch."""
        return self.documents / self.seconds if self.seconds and self.documents else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this rate; None while that is not known."""
        return max(0, self.of - self.documents) / self.rate if self.rate else None

    @property
    def line(self) -> str:
        """One line for people."""
        if not self.of:
            return self.what
        done = f"{self.what}: {self.documents} of {self.of} documents"
        if self.rate is not None and self.seconds_left is not None:
            done = f"{done}, {self.rate:.0f} a second, {self.seconds_left:.0f} s left"
        return f"{done} (the throttle cannot read {'; '.join(self.unread)})" if self.unread else done

    @property
    def fields(self) -> dict[str, Any]:
        """What machines are told."""
        rate, left = self.rate, self.seconds_left
        return {
            "what": self.what,
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
