"""What the legal holds on parts of a person's data mean for one erasure."""

from dataclasses import dataclass
from typing import Any, Self

from compliance.erasure.holds import Holds
from compliance.erasure.left_out import Hold, kept_by, left_out
from compliance.erasure.plan import Step
from compliance.erasure.progress import Erasure


@dataclass(frozen=True, slots=True, kw_only=True)
class Restraint:
    """The active holds on parts, and the steps that they forbid.

    Attributes:
        known: The ids of all of them.
        holds: Those that forbid a step.
        steps: Every step of the data map.
        numbers: Of the steps that each of ``holds`` forbids.
    """

    known: frozenset[str]
    holds: tuple[Hold, ...]
    steps: tuple[Step, ...]
    numbers: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, erasure: Erasure, steps: tuple[Step, ...]) -> Self:
        """Return what holds now; a hold on everything is not looked at here."""
        found = Holds(erasure.databases).active(*erasure.names, now=erasure.run.clock.now())
        parts = [hold for hold in found if hold.collection is not None]
        forbidden = [(hold, left_out(hold, steps, erasure.data_map)) for hold in parts]
        return cls(
            known=frozenset(hold.id for hold in parts),
            holds=tuple(hold for hold, numbers in forbidden if numbers),
            steps=steps,
            numbers=tuple(numbers for _, numbers in forbidden if numbers),
        )

    @property
    def allowed(self) -> tuple[Step, ...]:
        """The steps that are carried out, in their order."""
        forbidden = frozenset[int]().union(*self.numbers)
        return tuple(step for number, step in enumerate(self.steps) if number not in forbidden)

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections in which data of the person stays, and where nobody looks for it again."""
        return tuple(sorted({self.steps[number].collection for numbers in self.numbers for number in numbers}))

    @property
    def stored(self) -> dict[str, Any]:
        """What the request holds of it."""
        return {
            "holds": sorted(self.known),
            "held": [hold.stored for hold in self.holds],
            "left_out": list(self.collections),
        }

    def kept(self, erasure: Erasure) -> list[dict[str, Any]]:
        """Return what stays because of it, counted now."""
        if not self.holds:
            return []
        counts = [erasure.locator.count(step) if step.collection in self.collections else 0 for step in self.steps]
        pairs = zip(self.holds, self.numbers, strict=True)
        return [item for hold, numbers in pairs for item in kept_by(hold, self.steps, counts, numbers)]
