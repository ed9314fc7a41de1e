"""The history of migrations: events that are only ever added, and the one lease under which they run.

Document shape (``migration_history``)::

    {_id: ObjectId, fence: int, revision: str, event: "started" | "dual" | "completing" | "applied" | "reverting" |
     "reverted", checksum: str, by: str, at: date, source?: str}
    {_id: ObjectId, fence: int, revision: str, event: "repaired", fault: "edited" | "missing", checksum: str, was: str,
     reason: str, by: str, at: date, source?: str}

The fence of the lease orders the events of different runs, for their clocks, and the ids made of them, do not; an event
of a release that did not write it comes first.

Document shape (``migration_sources``), the text of every script that ever ran::

    {_id: hexadecimal SHA-256 of the text, name: str, source: bin (zlib)}
"""

import os
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

from bson import Binary
from pymongo import ASCENDING

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import LockHeld, RevisionEdited, RevisionMissing
from compliance.jobs.document import new_document
from compliance.jobs.job import RequestId
from compliance.jobs.ledger import Ledger
from compliance.jobs.run import Run, heartbeat
from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.discovery import read_script
from migrations.journal import STEPS
from migrations.past import Past, Trace, fold
from migrations.revision import Code, Revision, parse_name

HISTORY = "migration_history"
SOURCES = "migration_sources"
LEASE = "migration_lease"
LEASE_ID = RequestId("migrations")


@dataclass(frozen=True, slots=True)
class History:
    """What was applied to one application database."""

    databases: Databases

    def past(self) -> Past:
        """Return what became of every script."""
        return fold(self.events())

    def applied(self) -> dict[str, str]:
        """Return the checksum of every applied revision by name; one that is half undone is not applied."""
        return self.past().applied

    def events(self) -> list[Document]:
        """Return every event, oldest first."""
        with driver_errors():
            return list(self.databases.compliance[HISTORY].find({}, sort={"fence": ASCENDING, "_id": ASCENDING}))

    def steps(self, name: str) -> list[Document]:
        """Return the steps of the revision *name* that were carried out, in the order in which they were."""
        with driver_errors():
            return list(self.databases.compliance[STEPS].find({"revision": name}, sort=[("at", 1), ("_id", 1)]))

    def add(self, event: Document, *, session: Session) -> None:
        """Add *event* in the transaction of *session*."""
        self.databases.compliance[HISTORY].insert_one(dict(event), session=session)

    def keep(self, revision: Revision, *, session: Session) -> str:
        """Keep the text of *revision* in the transaction of *session*; return the id under which it is.

        What runs has its text in the history, so that ``down`` works when the folder is an older one.
        """
        id_ = sha256(revision.source).hexdigest()
        sources = self.databases.compliance[SOURCES]
        if sources.find_one({"_id": id_}, {"_id": 1}, session=session) is None:
            sources.insert_one(
                {"_id": id_, "name": revision.name, "source": Binary(zlib.compress(revision.source))}, session=session
            )
        return id_

    def gone(self, past: Past, folder: Iterable[Revision]) -> tuple[Revision, ...]:
        """Return the scripts that left something to undo and are not in *folder*, as they were when they ran."""
        present = {revision.name for revision in folder}
        return tuple(self.recall(past.traces[name]) for name in sorted(past.begun - present))

    def recall(self, trace: Trace) -> Revision:
        """Return a script from the text that is kept; one whose text is not kept can be named, but not run.

        Raises:
            RevisionEdited: When the text is not the one that ran.
        """
        with driver_errors():
            kept = self.databases.compliance[SOURCES].find_one({"_id": trace.source}) if trace.source else None
        if kept is None:
            return _unkept(trace)
        text = zlib.decompress(kept["source"])
        if sha256(text).hexdigest() == trace.source:
            revision = read_script(f"{trace.name}.py", text, place=f"{SOURCES}/{trace.source}")
            if revision.checksum == trace.checksum:
                return revision
        raise RevisionEdited(f"{trace.name}: the text in {SOURCES} is not the one that was applied")


def _unkept(trace: Trace) -> Revision:
    def load() -> Code:
        raise RevisionMissing(
            f"{trace.name} is not in the folder, and the history does not hold its text; bring the script back"
        )

    name, number, phase = parse_name(f"{trace.name}.py")
    return Revision(
        name=name,
        number=number,
        phase=phase,
        summary="",
        checksum=trace.checksum,
        irreversible=None,
        depends_on=None,
        source=b"",
        load=load,
    )


def left_behind(databases: Databases) -> Mapping[str, Any]:
    """Return the checkpoint of a run that was interrupted, or that goes on; empty where there is none."""
    with driver_errors():
        found = databases.compliance[LEASE].find_one({"_id": LEASE_ID}, {"checkpoint": 1}) or {}
    return found.get("checkpoint") or {}


def owner() -> str:
    """Return the name under which this process holds leases."""
    return f"{socket.gethostname()}:{os.getpid()}"


@contextmanager
def lease(
    databases: Databases,
    *,
    owner: str,
    clock: Clock,
    length: timedelta,
    should_stop: Callable[[], bool] = lambda: False,
    lease_id: RequestId = LEASE_ID,
    work: str = "migrations are run",
) -> Iterator[Run]:
    """Hold the migration lease for the block; every commit of the run compares its fence and asks *should_stop*.

    With another *lease_id* it is the lease of other *work*: a rehearsal, or keeping one online change in step.

    Raises:
        LockHeld: When somebody else does that; the message says who, and until when the lease lasts.
    """
    ledger = Ledger(databases, LEASE)
    ledger.record(new_document(lease_id, kind="migration.lease", payload={}, origin="migrations", now=clock.now()))
    claim = ledger.claim(lease_id, owner=owner, lease=length)
    if claim is None:
        with driver_errors():
            held = (ledger.jobs.find_one({"_id": lease_id}) or {}).get("lease") or {}
        until = held.get("until")
        when = f" until {until:%H:%M:%S} UTC, renewed while it works" if until else ""
        raise LockHeld(f"{work} by {held.get('owner', 'another process')}{when}; try again when it is done")
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
