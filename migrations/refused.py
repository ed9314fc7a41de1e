"""Let writes in again that a runner refused which is gone: for a process that always runs.

A runner that dies while a copy takes the place of a collection leaves writes refused. Whoever migrates next lets them
in; where nobody does, this looks, takes the lease of migrations once it has ended for a while, and does the same.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from compliance.clock import Clock
from compliance.erasure.frozen import find_frozen, recorded
from compliance.errors import LockHeld
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import Grants
from migrations.context import Context
from migrations.ledger import LEASE, LEASE_ID, lease, owner
from migrations.ops.rebuild import put_back, recover

GRACE = timedelta(seconds=5)  # whoever migrates may come back by itself
NOTHING = Grants(erasable=(), importable=())


def find_abandoned(databases: Databases, *, grace: timedelta = timedelta()) -> tuple[str, ...]:
    """Return the collections that a runner left refusing writes, or exchanged and not settled.

    Args:
        databases: Where to look.
        grace: For how long its lease must have ended.
    """
    frozen, names = find_frozen(databases), recorded(databases)
    if not frozen and not names:
        return ()
    held = _held(databases)
    if _has_ended(databases, held, grace=grace):
        return tuple(sorted({*names, *(one.collection for one in frozen)}))
    fence = held.get("fence", 0)
    return tuple(sorted(one.collection for one in frozen if one.collection not in names and one.fence < fence))


def _held(databases: Databases) -> Document:
    with driver_errors():
        return databases.compliance[LEASE].find_one({"_id": LEASE_ID}) or {}


def _has_ended(databases: Databases, held: Document, *, grace: timedelta) -> bool:
    """Whether nobody has the lease, nor had it within *grace*."""
    end = (held.get("lease") or {}).get("until") or held.get("updated_at")
    return end is None or end + grace < databases.server_time()


@dataclass(slots=True, kw_only=True)
class Rescue:
    """Looks for writes that stay refused.

    Attributes:
        alarm: Told of the collections, once for each time that it lasts.
        told: Told what was done.
    """

    databases: Databases
    clock: Clock
    actor: str
    length: timedelta
    should_stop: Callable[[], bool]
    alarm: Callable[[Sequence[str]], None]
    told: Callable[[str], None]
    grace: timedelta = GRACE
    _known: tuple[str, ...] = field(default=(), init=False)

    def look(self) -> None:
        """Look once; tell people, then let writes in.

        Raises:
            StepFailed: When an exchange cannot be settled any more; the message says what a person can do.
        """
        found = find_abandoned(self.databases, grace=self.grace)
        if set(found) - set(self._known):
            self.alarm(found)
        self._known = found
        if not found:
            return
        held = _held(self.databases)
        if _has_ended(self.databases, held, grace=self.grace):
            self._recover()
            return
        for frozen in find_frozen(self.databases):
            if frozen.collection in found and frozen.fence < held["fence"]:
                put_back(self.databases, frozen.collection, fence=frozen.fence, actor=self.actor)

    def _recover(self) -> None:
        with (
            suppress(LockHeld),  # by whoever migrates by now, and does the same first
            lease(
                self.databases, owner=owner(), clock=self.clock, length=self.length, should_stop=self.should_stop
            ) as run,
        ):
            recover(
                Context(
                    databases=self.databases,
                    revision="recovery",
                    actor=self.actor,
                    grants=NOTHING,
                    report=self.told,
                    run=run,
                )
            )
