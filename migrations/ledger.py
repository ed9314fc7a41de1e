"""The history of migrations: events that are only ever added, and the one lease under which they run.

Document shape (``migration_history``)::

    {_id: ObjectId, revision: str, event: "started" | "applied" | "reverting" | "reverted", checksum: str, by: str,
     at: date}
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from pymongo import ASCENDING

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import LockHeld
from compliance.jobs.document import new_document
from compliance.jobs.job import RequestId
from compliance.jobs.ledger import Ledger
from compliance.jobs.run import Run, heartbeat
from compliance.mongo import Databases, Document, Session, driver_errors

HISTORY = "migration_history"
LEASE = "migration_lease"
LEASE_ID = RequestId("migrations")


@dataclass(frozen=True, slots=True)
class History:
    """What was applied to one application database."""

    databases: Databases

    def applied(self) -> dict[str, str]:
        """Return the checksum of every applied revision by name; one that is half undone is not applied."""
        return {name: event["checksum"] for name, event in self._last().items() if event["event"] == "applied"}

    def begun(self) -> frozenset[str]:
        """Return the name of every revision that left something to undo: applied, half applied or half undone."""
        return frozenset(name for name, event in self._last().items() if event["event"] != "reverted")

    def _last(self) -> dict[str, Document]:
        return {event["revision"]: event for event in self.events()}

    def events(self) -> list[Document]:
        """Return every event, oldest first."""
        with driver_errors():
            return list(self.databases.compliance[HISTORY].find({}, sort={"_id": ASCENDING}))

    def add(self, event: Document, *, session: Session) -> None:
        """Add *event* in the transaction of *session*."""
        self.databases.compliance[HISTORY].insert_one(dict(event), session=session)


@contextmanager
def lease(
    databases: Databases,
    *,
    owner: str,
    clock: Clock,
    length: timedelta,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Run]:
    """Hold the migration lease for the block; every commit of the run compares its fence and asks *should_stop*.

    Raises:
        LockHeld: When somebody else runs migrations; the message says who, and until when the lease lasts.
    """
    ledger = Ledger(databases, LEASE)
    ledger.record(new_document(LEASE_ID, kind="migration.lease", payload={}, origin="migrations", now=clock.now()))
    claim = ledger.claim(LEASE_ID, owner=owner, lease=length)
    if claim is None:
        with driver_errors():
            held = (ledger.jobs.find_one({"_id": LEASE_ID}) or {}).get("lease") or {}
        until = held.get("until")
        when = f" until {until:%H:%M:%S} UTC, renewed while it works" if until else ""
        raise LockHeld(f"migrations are run by {held.get('owner', 'another process')}{when}; try again when it is done")
    run = Run(
        claim=claim,
        ledger=ledger,
        log=AuditLog(databases, Cause(channel="migrations")),
        clock=clock,
        should_stop=should_stop,
    )
    try:
        with heartbeat(run, lease=length):
            yield run
    finally:
        ledger.hand_back(claim, delay=timedelta())
