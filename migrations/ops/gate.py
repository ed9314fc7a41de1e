"""Wait for a condition, or for a person, between two steps.

Document shape (``migration_approvals``)::

    {_id: ObjectId, gate: str, revision: str, passage: ObjectId, by: str, reason: str, at: date, used_by: str}

An approval opens the gate at which a script waits, in this passage through it, and no other gate of that name;
``used_by`` names the script that went through.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from bson import ObjectId

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import GateClosed, InvalidPayload, MigrationError
from compliance.mongo import Databases, Db, Document, Session, driver_errors
from compliance.roles import APPROVALS
from migrations.again import record_once
from migrations.ledger import left_behind
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
    is_asked = approval and not ctx.asks_nobody
    ctx.report(f"gate {name}: {'wait for an approval' if approval else 'wait for its condition'}")
    if ctx.is_dry_run:
        return
    if is_asked:
        ctx.leave(step, waiting(ctx, name))
    end = ctx.now() + patience
    while (is_asked or until is not None) and not _is_open(ctx, name, until):
        if ctx.now() >= end:
            way = f'`compliance migrate approve {name} --reason "..."`' if approval else "its condition"
            raise GateClosed(f"{ctx.revision} waits at gate {name} for {way}; run `compliance migrate up` again then")
        ctx.check()
        ctx.sleep(POLL)

    def use(session: Session) -> None:
        used = {"$set": {"used_by": ctx.revision}}
        ctx.databases.compliance[APPROVALS].update_one({**waiting(ctx, name), **UNUSED}, used, session=session)

    ctx.finish(step, {"op": "gate", "gate": name}, use if is_asked else None)


def _is_open(ctx: "Hands", name: str, until: Condition | None) -> bool:
    with driver_errors():
        if until is not None:
            return bool(until(ctx.databases.app))
        approvals = ctx.databases.compliance[APPROVALS]
        return approvals.find_one({**waiting(ctx, name), **UNUSED}, {"_id": 1}) is not None


def waiting(ctx: "Hands", name: str) -> Document:
    """Return what tells the gate *name* of this passage through this script from all others.

    Raises:
        MigrationError: Outside of a script.
    """
    if ctx.journal is None:
        raise MigrationError(f"gate {name}: only a script waits for an approval")
    return {"gate": name, "revision": ctx.revision, "passage": ctx.journal.passage}


def approve(databases: Databases, log: AuditLog, *, name: str, reason: str, by: str, clock: Clock) -> None:
    """Open the gate *name* for the script that waits at it.

    Raises:
        GateClosed: When no script waits at it.
        InvalidPayload: Without a reason, or with one that could hold an e-mail address.
    """
    if not reason.strip() or "@" in reason:
        raise InvalidPayload("an approval needs a reason without e-mail addresses: it stays in the audit log")
    place = left_behind(databases).get("place", {})
    if place.get("gate") != name:
        raise GateClosed(
            f"no migration waits at gate {name}; run `compliance migrate up` first, which waits there and says so"
        )
    at = {"gate": name, "revision": place["revision"], "passage": place["passage"]}
    approval = {"_id": ObjectId(), **at, "by": by, "reason": reason, "at": clock.now()}
    entry = Entry(
        event=str(approval["_id"]),
        entity_type="migration",
        entity_id=name,
        action="migration.approved",
        created_at=clock.now(),
        performed_by=by,
        details={"gate": name, "revision": place["revision"], "reason": reason},
    )

    def effect(session: Session) -> None:
        log.append(entry, session=session)
        databases.compliance[APPROVALS].insert_one(approval, session=session)

    record_once(databases, effect, clock=clock)
