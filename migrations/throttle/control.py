"""What a person may set of the throttle, in one document that is read between batches.

Document shape (``migration_control``)::

    {_id: "throttle", batch_seconds: double, beside_seconds: double, max_lag_seconds: double, min_oplog_minutes: double,
     paused: bool, window: str | null, by: str, at: date}
    {_id: "canary", at: date}

What is there of collections that are rebuilt is in ``migrations.ops.rebuild.shadow``.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, time
from typing import Any

from bson import ObjectId

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import InvalidPayload
from compliance.mongo import Databases, Document, Session, driver_errors
from compliance.roles import CONTROL
from migrations.again import record_once

THROTTLE = "throttle"
SHORTEST_BATCH, LONGEST_BATCH = 0.001, 10.0

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """How fast migrations may go.

    Attributes:
        batch_seconds: How long a batch should take.
        beside_seconds: How long beside others, where that is shorter: whoever writes meanwhile waits for its commit.
        max_lag_seconds: How far a secondary may be behind.
        min_oplog_minutes: How far back an oplog that drops entries must reach; 0 for any.
        paused: Whether a person stopped them.
        window: Times of day in UTC between which they may work, such as ``22:00-06:00``; None for always.

    Raises:
        InvalidPayload: When a value is out of its range.
    """

    batch_seconds: float = 0.25
    beside_seconds: float = 0.006
    max_lag_seconds: float = 2.0
    min_oplog_minutes: float = 60.0
    paused: bool = False
    window: str | None = None

    def __post_init__(self) -> None:
        if not all(SHORTEST_BATCH <= took <= LONGEST_BATCH for took in (self.batch_seconds, self.beside_seconds)):
            raise InvalidPayload(f"a batch takes from {SHORTEST_BATCH} to {LONGEST_BATCH} seconds")
        if not self.max_lag_seconds > 0:
            raise InvalidPayload("the lag of secondaries is bounded by a number of seconds above 0")
        if not self.min_oplog_minutes >= 0:
            raise InvalidPayload("the oplog is to reach back a number of minutes, 0 for any")
        if self.window is not None and not _WINDOW.fullmatch(self.window):
            raise InvalidPayload("a window is two times of day in UTC, such as 22:00-06:00")

    def is_within_window(self, now: datetime) -> bool:
        """Whether *now*, in UTC, is in the window; one that ends before it begins goes over midnight."""
        found = _WINDOW.fullmatch(self.window or "")
        if found is None:
            return True
        hour, minute, end_hour, end_minute = map(int, found.groups())
        begin, end, at = time(hour, minute), time(end_hour, end_minute), now.time().replace(tzinfo=None)
        return begin <= at < end if begin <= end else at >= begin or at < end


NAMES = tuple(field.name for field in fields(Control))


def read_control(databases: Databases) -> Control:
    """Return what is set now; what nobody set is as ``Control`` has it."""
    with driver_errors():
        stored = databases.compliance[CONTROL].find_one({"_id": THROTTLE}) or {}
    return Control(**{name: stored[name] for name in NAMES if name in stored})


def change_control(
    databases: Databases, log: AuditLog, changes: Mapping[str, Any], *, by: str, clock: Clock
) -> Control:
    """Set *changes* and return what is set then; a run that is under way reads it before its next batch.

    Raises:
        InvalidPayload: When a value is out of its range; nothing is changed.
    """
    control = replace(read_control(databases), **changes)
    now = clock.now()
    stored: Document = {**asdict(control), "by": by, "at": now}
    entry = Entry(
        event=str(ObjectId()),
        entity_type="migration",
        entity_id=THROTTLE,
        action="migration.throttled",
        created_at=now,
        performed_by=by,
        details={name: str(value) for name, value in changes.items()},
    )

    def effect(session: Session) -> None:
        log.append(entry, session=session)
        databases.compliance[CONTROL].update_one({"_id": THROTTLE}, {"$set": stored}, upsert=True, session=session)

    record_once(databases, effect, clock=clock)
    return control
