"""Whether anybody else works on the servers: where nobody does, a migration need not keep out of the way.

The servers count operations and not whose they are, so ours are counted, too, and taken off.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from compliance.mongo import Databases

COUNTED = ("insert", "query", "update", "delete")
QUIET = 10.0  # operations a second: what our own processes do when nobody asks for anything
LEAST = timedelta(seconds=1)  # over which a rate says something
PER_BATCH = 4  # where it ends, its update, the fence, the audit entry


@dataclass(slots=True)
class Crowd:
    """What others do beside a step.

    Attributes:
        ours: How many operations were ours.
        rate: Operations a second of others; None while it is not known.
    """

    ours: int = 0
    rate: float | None = None
    before: tuple[datetime, int] | None = field(default=None, init=False)

    @property
    def is_empty(self) -> bool:
        """Whether nobody else works on the servers; not while that is not known."""
        return self.rate is not None and self.rate <= QUIET

    def look(self, total: int, *, now: datetime) -> None:
        """Take *total*, the operations that the server has counted until *now*."""
        others = total - self.ours
        if self.before is None or others < self.before[1] - QUIET:  # the server began to count anew
            self.before, self.rate = (now, others), None
            return
        began, counted = self.before
        if now - began >= LEAST:
            self.rate = (others - counted) / (now - began).total_seconds()
            self.before = (now, others)


def count_operations(databases: Databases) -> int:
    """Return how many operations the server was asked for since its start."""
    found = databases.client.admin.command("serverStatus")["opcounters"]
    return sum(int(found[name]) for name in COUNTED)
