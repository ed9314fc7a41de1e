"""What the consent events of one person and purpose add up to; order of arrival does not matter."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class Standing:
    """Granted or withdrawn, since when.

    Of two that happened at the same moment the withdrawal is the greater: doubt is not consent (GDPR Art. 4(11)).
    """

    occurred_at: datetime
    withdrawn: bool

    @property
    def granted(self) -> bool:
        """Whether the person agrees."""
        return not self.withdrawn


def standing(*, granted: bool, occurred_at: datetime) -> Standing:
    """Return what one event says."""
    return Standing(occurred_at, withdrawn=not granted)


def fold(events: Iterable[Standing]) -> Standing | None:
    """Return the standing after *events*, None without any; repeats and any order give the same."""
    return max(events, default=None)
