"""Wait for a condition, or for a person, between two steps.

Document shape (``migration_approvals``)::

    {_id: ObjectId, gate: str, by: str, reason: str, at: date, used_by: str}

An approval opens its gate once: ``used_by`` names the script that went through.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from bson import ObjectId
from pymongo import ASCENDING

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import GateClosed, InvalidPayload, MigrationError
from compliance.mongo import Databases, Db, Session, driver_errors
from compliance.roles import APPROVALS
from migrations.again import record_once
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands

UNUSED = {"used_by": {"$exists": False}}
POLL = timedelta(seconds=1)

Condition = Callable[[Db], bool]


def gate(ctx: "Hands", name: str, until: Condition | None, *, approval: bool, patience: timedelta) -> None:
    """Return when the gate is open; a run that has waited for *patience* ends, and the next one waits here again.

    Raises:
        GateClosed: When it is not open yet; the message says what opens it.
    """
    if (until is None) != approval:
        raise MigrationError(f"gate {name}: give until=condition or approval=True")
    step = ctx.begin(Kind.GATE, f"gate {name}", name=name, until=until, approval=approval)
    if step is None:
        return
    ctx.report(f"gate {name}: {'wait for an approval' if approval else 'wait for its condition'}")
    if ctx.is_dry_run:
        return
    end = ctx.now() + patience
    while not _is_open(ctx, name, until):
        if ctx.now() >= end:
            way = f'`compliance migrate approve {name} --reason "..."`' if approval else "its condition"
            raise GateClosed(f"{ctx.revision} waits at gate {name} for {way}; run `compliance migrate up` again then")
        ctx.check()
        ctx.sleep(POLL)

    def use(session: Session) -> None:
        used = {"$set": {"used_by": ctx.revision}}
        ctx.databases.compliance[APPROVALS].update_one({"gate": name, **UNUSED}, used, session=session)

    ctx.finish(step, {"op": "gate", "gate": name}, use if approval else None)


def _is_open(ctx: "Hands", name: str, until: Condition | None) -> bool:
    with driver_errors():
        if until is not None:
            return bool(until(ctx.databases.app))
        approvals = ctx.databases.compliance[APPROVALS]
        return approvals.find_one({"gate": name, **UNUSED}, {"_id": 1}, sort=[("_id", ASCENDING)]) is not None


def approve(databases: Databases, log: AuditLog, *, name: str, reason: str, by: str, clock: Clock) -> None:
    """Open the gate *name* for the script that waits at it, or comes to it next.

    Raises:
        InvalidPayload: Without a reason, or with one that could hold an e-mail address.
    """
    if not reason.strip() or "@" in reason:
        raise InvalidPayload("an approval needs a reason without e-mail addresses: it stays in the audit log")
    approval = {"_id": ObjectId(), "gate": name, "by": by, "reason": reason, "at": clock.now()}
    entry = Entry(
        event=str(approval["_id"]),
        entity_type="migration",
        entity_id=name,
        action="migration.approved",
        created_at=clock.now(),
        performed_by=by,
        details={"gate": name, "reason": reason},
    )

    def effect(session: Session) -> None:
        log.append(entry, session=session)
        databases.compliance[APPROVALS].insert_one(approval, session=session)

    record_once(databases, effect, clock=clock)
