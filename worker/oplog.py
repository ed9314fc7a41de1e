"""Follows the oplog for what change streams do not show, and raises the alarm.

What is looked at, and what it means: ``compliance/audit/oplog.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from bson import Timestamp
from pymongo import ASCENDING, DESCENDING
from pymongo.cursor import Cursor, CursorType
from pymongo.read_concern import ReadConcern

from compliance.audit.incident import Incident, Kind
from compliance.audit.log import LENIENT
from compliance.audit.oplog import FIELDS, Logged, is_split, judge, operations_of, part_before, place_of, query
from compliance.mongo import Document
from worker.lookout import Lookout

log = structlog.get_logger(__name__)

OPLOG = "oplog"
PLACE_ID = "local.oplog.rs"  # no database has a name with dots
BATCH_ENTRIES = 200
AWAIT_MS = 250
IDLE_SAVE = timedelta(seconds=10)
NATURAL = "$natural"


@dataclass(frozen=True, slots=True)
class OplogWatch:
    """Follows the oplog of the replica set."""

    lookout: Lookout

    def follow(self) -> None:
        """Follow until asked to stop, or until the cursor ends."""
        place = self._begin()
        version = self.lookout.services.databases.client.server_info()["versionArray"]
        wanted = query(self.lookout.services.databases.name, version=version)
        found = self._oplog.find({"ts": {"$gt": place}, **wanted}, FIELDS, cursor_type=CursorType.TAILABLE_AWAIT)
        with found.max_await_time_ms(AWAIT_MS) as cursor:
            log.info("watch.following", database="local")
            self._read(cursor)

    @property
    def _oplog(self) -> Any:
        return self.lookout.services.databases.client.get_database("local", codec_options=LENIENT)["oplog.rs"]

    def _begin(self) -> Timestamp:
        """Return behind which place to read; what nobody can say any more is an incident."""
        oldest, newest = self._end(ASCENDING), self._end(DESCENDING)
        # A new primary holds all that was committed before it knows that it was: its own end is what counts here.
        last = max(newest, self._end(DESCENDING, level="local"))
        places = [saved.get("ts") for saved in self.lookout.places()]
        there = [place for place in places if isinstance(place, Timestamp) and oldest <= place <= last]
        gone = [self._lost(place, last) for place in places if place not in there]
        if not there:
            self.lookout.keep(gone, {"ts": newest}, events=0)
            return newest
        begin = min(there)
        if gone:  # a server that was set back is a sign by itself, a place from long ago is none
            self.lookout.alarm.ring([incident for incident in gone if incident.kind is Kind.ROLLBACK])
            self.lookout.go_on_from({"ts": begin})
        return begin

    def _end(self, direction: int, *, level: str = "majority") -> Timestamp:
        oplog = self._oplog.with_options(read_concern=ReadConcern(level))
        return place_of(oplog.find_one({}, {"ts": 1}, sort=[(NATURAL, direction)]))

    def _lost(self, place: object, last: Timestamp) -> Incident:
        if isinstance(place, Timestamp) and place > last:
            kind, what = Kind.ROLLBACK, "the oplog ends before what was read of it: the server was set back"
        else:
            kind, what = Kind.WATCH_LOST, "the oplog no longer reaches back to the last entry that was looked at"
        return Incident(kind=kind, what=what, at=self.lookout.services.databases.server_time(), event=f"oplog {place}")

    def _read(self, cursor: Cursor[Document]) -> None:
        saved_at = self.lookout.services.clock.now()
        entries: list[Logged] = []
        horizon: Timestamp | None = None
        while cursor.alive and not self.lookout.should_stop():
            entry = next(cursor, None)
            if entry is not None:
                entries.append(entry)
                if len(entries) < BATCH_ENTRIES:
                    continue
            self.lookout.on_read()
            now = self.lookout.services.clock.now()
            if entries:
                self._keep(entries)
                entries, horizon, saved_at = [], None, now
            elif horizon is not None:  # it was the end before the cursor came to the end: nothing waits before it
                self.lookout.save({"ts": horizon})
                horizon, saved_at = None, now
            elif now - saved_at > IDLE_SAVE:
                horizon = self._end(DESCENDING)

    def _keep(self, entries: Sequence[Logged]) -> None:
        app = self.lookout.services.databases.name
        judged = [judge(entry, self._operations(entry), app=app) for entry in entries]
        incidents = [incident for incident in judged if incident is not None]
        self.lookout.keep(incidents, {"ts": place_of(entries[-1])}, events=len(entries))

    def _operations(self, entry: Logged) -> set[tuple[str, str]] | list[tuple[str, str]]:
        """Return what *entry* did; of a large transaction each thing once, so that memory stays bounded."""
        if not is_split(entry):
            return operations_of(entry)
        done = set(operations_of(entry))
        part: Logged | None = entry
        while part is not None and (before := part_before(part)) is not None:
            part = self._oplog.find_one({"ts": before}, FIELDS)
            done.update(operations_of(part) if part is not None else ())
        return done
