"""Follows the oplog for what change streams do not show, and raises the alarm.

What is looked at, and what it means: ``compliance/audit/oplog.py``. The place is saved when the incidents are kept, as
in ``worker/tamper.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from worker.alarm import Alarm
from worker.services import Services
from worker.telemetry import metrics
from worker.tokens import find_token, save_token

log = structlog.get_logger(__name__)

OPLOG = "oplog"
PLACE_ID = "local.oplog.rs"  # no database has a name with dots
BATCH_ENTRIES = 200
AWAIT_MS = 250
IDLE_SAVE = timedelta(seconds=10)
NATURAL = "$natural"


@dataclass(frozen=True, slots=True)
class OplogWatch:
    """Follows the oplog of the replica set.

    Attributes:
        on_read: Told whenever the oplog was read, also when nothing was there.
        on_saved: Told when the place is saved.
    """

    services: Services
    should_stop: Callable[[], bool]
    on_read: Callable[[], None] = lambda: None
    on_saved: Callable[[], None] = lambda: None
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alarm", Alarm(self.services.databases))

    def follow(self) -> None:
        """Follow until asked to stop, or until the cursor ends."""
        place = self._begin()
        version = self.services.databases.client.server_info()["versionArray"]
        wanted = query(self.services.databases.name, version=version)
        found = self._oplog.find({"ts": {"$gt": place}, **wanted}, FIELDS, cursor_type=CursorType.TAILABLE_AWAIT)
        with found.max_await_time_ms(AWAIT_MS) as cursor:
            log.info("watch.following", database="local")
            self._read(cursor)

    @property
    def _oplog(self) -> Any:
        return self.services.databases.client.get_database("local", codec_options=LENIENT)["oplog.rs"]

    def _begin(self) -> Timestamp:
        """Return behind which place to read; what nobody can say any more is an incident."""
        oldest, newest = self._end(ASCENDING), self._end(DESCENDING)
        # A new primary holds all that was committed before it knows that it was: its own end is what counts here.
        last = max(newest, self._end(DESCENDING, level="local"))
        saved = find_token(self.services.databases, PLACE_ID)
        place = saved["ts"] if saved else None
        if isinstance(place, Timestamp) and oldest <= place <= last:
            return place
        if place is not None:
            self.alarm.ring([self._lost(place, last)])
        self._save(newest)
        return newest

    def _end(self, direction: int, *, level: str = "majority") -> Timestamp:
        oplog = self._oplog.with_options(read_concern=ReadConcern(level))
        return place_of(oplog.find_one({}, {"ts": 1}, sort=[(NATURAL, direction)]))

    def _lost(self, place: object, last: Timestamp) -> Incident:
        if isinstance(place, Timestamp) and place > last:
            kind, what = Kind.ROLLBACK, "the oplog ends before what was read of it: the server was set back"
        else:
            kind, what = Kind.WATCH_LOST, "the oplog no longer reaches back to the last entry that was looked at"
        return Incident(kind=kind, what=what, at=self.services.databases.server_time(), event=f"oplog {place}")

    def _read(self, cursor: Cursor[Document]) -> None:
        saved_at = self.services.clock.now()
        entries: list[Logged] = []
        horizon: Timestamp | None = None
        while cursor.alive and not self.should_stop():
            entry = next(cursor, None)
            if entry is not None:
                entries.append(entry)
                if len(entries) < BATCH_ENTRIES:
                    continue
            self.on_read()
            now = self.services.clock.now()
            if entries:
                self._keep(entries)
                entries, horizon, saved_at = [], None, now
            elif horizon is not None:  # it was the end before the cursor came to the end: nothing waits before it
                self._save(horizon)
                horizon, saved_at = None, now
            elif now - saved_at > IDLE_SAVE:
                horizon = self._end(DESCENDING)

    def _keep(self, entries: Sequence[Logged]) -> None:
        app = self.services.databases.name
        judged = [judge(entry, self._operations(entry), app=app) for entry in entries]
        incidents = [incident for incident in judged if incident is not None]
        if incidents:
            self.alarm.ring(incidents)
        self._save(place_of(entries[-1]))
        metrics.WATCH_EVENTS.inc(OPLOG, by=len(entries))

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

    def _save(self, place: Timestamp) -> None:
        save_token(self.services.databases, PLACE_ID, {"ts": place}, now=self.services.clock.now())
        self.on_saved()
