"""One difference between two data maps, in words of the law rather than of the file; pure."""

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What a change does for people.

    Attributes:
        LESS: Less is erased or told to others than before, or later, or it cannot be said.
        MORE: More is, or earlier.
        SAME: As much, on another ground or in another way.
    """

    LESS = "less"
    MORE = "more"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference.

    Attributes:
        place: What it is about, such as ``orders.email``.
    """

    place: str
    before: str
    now: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.place}: {self.before} before, {self.now} now"


def by_rank(before: int, now: int) -> Effect:
    """Return the effect of a step between two ranks, of which the higher erases more."""
    return Effect.SAME if before == now else Effect.MORE if now > before else Effect.LESS
