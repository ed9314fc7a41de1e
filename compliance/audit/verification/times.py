"""When entries were written and sealed, as far as that can be believed.

An entry says its own time, which its writer signed and its leaf hash covers; a batch says when it was sealed, which
nothing covers. So whether the log is silent, or late, goes by entries, and the time of a batch is compared with theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from compliance.audit.leaf import EPOCH
from compliance.audit.seals import CLOCKS_APART

SEALED_WITHIN = timedelta(minutes=1)

_MILLISECOND = timedelta(milliseconds=1)
_APART = CLOCKS_APART // _MILLISECOND


def milliseconds(moment: datetime) -> int:
    """Return *moment* as BSON has it: milliseconds since 1970."""
    return (moment - EPOCH) // _MILLISECOND


@dataclass(slots=True)
class Times:
    """Follows the times of one log, in its order; all are in milliseconds since 1970.

    Attributes:
        now: The time by which something is late, or of the future.
        latest: The latest time that an entry so far has.
        signed: The same, of entries that a checkpoint signs; none is later than now.
    """

    now: int
    latest: int = 0
    signed: int = 0
    _sealed_at: int | None = None
    _newest: int = 0
    _oldest: int | None = None
    _sealed_first: int | None = None

    def recall(self, created_at: int) -> None:
        """Take the time of an entry that was verified before."""
        self.latest = max(self.latest, created_at)
        self.signed = max(self.signed, self._believed(created_at))

    def recall_seal(self, sealed_at: datetime) -> None:
        """Take the time of the batch before the first one that is verified."""
        self._sealed_at = milliseconds(sealed_at)

    def take_seal(self, sealed_at: datetime, *, was_there: bool) -> str | None:
        """Take the time of the next batch; return what is wrong with it, None where nothing is.

        Args:
            sealed_at: When it was sealed, as it says.
            was_there: Whether it was there when the verification began: others may be of after it.
        """
        moment, before = milliseconds(sealed_at), self._sealed_at
        self._sealed_first = moment if self._sealed_first is None else min(self._sealed_first, moment)
        if was_there and moment > self.now + _APART:
            return "it says that it was sealed in the future"
        self._sealed_at = moment
        if before is not None and moment < before - _APART:
            return "it says that it was sealed before the batch before it"
        return None

    def take(self, created_at: int, sealed_at: int) -> str | None:
        """Take the time of an entry of a batch; return why it cannot be right, None where it can."""
        self._oldest = created_at if self._oldest is None else min(self._oldest, created_at)
        self._newest = max(self._newest, self._believed(created_at))
        if created_at < self.latest - _APART:
            return "entries that were sealed before it have a later time"
        if created_at > sealed_at + _APART:
            return "its time is later than that of its seal"
        self.latest = max(self.latest, created_at)
        return None

    def take_all(self, moments: Sequence[int], sealed_at: int) -> list[tuple[int, str]]:
        """Take the times of all entries of a batch; return which of them cannot be right, and why."""
        if not moments:
            return []
        least, most = min(moments), max(moments)
        if most - _APART <= min(sealed_at, self.now) and least >= max(most, self.latest) - _APART:  # none is to be said
            self.take(least, sealed_at)
            self.take(most, sealed_at)
            return []
        found = ((number, self.take(moment, sealed_at)) for number, moment in enumerate(moments))
        return [(number, why) for number, why in found if why is not None]

    def sign(self) -> None:
        """Note that a checkpoint signs all that was taken so far."""
        self.signed = max(self.signed, self._newest)
        self._oldest = self._sealed_first = None

    @property
    def is_late(self) -> bool:
        """Whether something that no checkpoint signs should be signed by now."""
        seal, entry = self._sealed_first, self._oldest
        within = SEALED_WITHIN // _MILLISECOND
        return (seal is not None and seal < self.now - within) or (
            entry is not None and entry < self.now - within - _APART
        )

    def _believed(self, created_at: int) -> int:
        return created_at if created_at <= self.now + _APART else 0
