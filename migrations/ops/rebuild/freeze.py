"""Refuse writes to a collection for a moment, and let them in again.

A validator that refuses everything stops inserts and updates with code 121; deletes it does not stop. That it is there
is recorded before, and it says itself what was there before it (``compliance.erasure.frozen``). It does not end by
itself: MongoDB takes ``$$NOW`` in a validator for the moment in which the validator was made (measured on 6.0.5).

No transaction holds ``collMod``, so a runner that slept past its lease may send it late. It names the collection by its
UUID, which a copy that took the place does not have; right behind it the fence is compared, and whoever finds the lease
lost puts back what was there. Who dies before that leaves a validator without a record, which ``find_frozen`` finds.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson import Timestamp, json_util
from pymongo.errors import ExecutionTimeout, OperationFailure

from compliance.audit.entry import Cause, Entry
from compliance.audit.log import AuditLog
from compliance.clock import SystemClock
from compliance.erasure.frozen import EXACT, Frozen, find_frozen, recorded, refusing
from compliance.errors import DuplicateEntry, LeaseLost
from compliance.mongo import Databases, Document, Session, driver_errors
from compliance.roles import CONTROL, REBUILD
from migrations.command import MAJORITY, Command, alteration, send
from migrations.ops.ddl import alter
from migrations.ops.observed import options_of
from migrations.ops.rebuild.shadow import uuid_of
from migrations.ops.validator import STRICT, rules_of
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

ANOTHER_UUID = 361  # CollectionUUIDMismatch


class FreezeTooLong(Exception):
    """Writes would be refused for longer than they may be."""


def freeze(ctx: "Hands", step: Step, collection: str, *, place: Mapping[str, Any]) -> Timestamp:
    """Refuse writes to *collection*; return the time since when they are refused.

    Raises:
        FreezeTooLong: When the collection is in use and the command did not get its lock at once.
        LeaseLost: When somebody else migrates now; writes are let in again, if it was us who refused them.
    """
    kept, command = freezing(ctx, collection, fence=ctx.fence)

    def effect(session: Session) -> None:
        frozen = {"collection": collection, "frozen": json_util.dumps(kept, json_options=EXACT)}
        ctx.databases.compliance[CONTROL].update_one(
            {"_id": f"{REBUILD}{collection}"}, {"$set": frozen, "$inc": {"freezes": 1}}, upsert=True, session=session
        )

    ctx.commit(step, {"op": "freeze", "collection": collection}, effect, place=lambda: place)
    ctx.check()
    with driver_errors():
        try:
            answer = send(ctx, command)
        except ExecutionTimeout:
            raise FreezeTooLong from None
        except OperationFailure as error:
            if error.code != ANOTHER_UUID:
                raise
            raise LeaseLost(f"another collection is {collection} by now; nothing was changed") from None
    try:
        ctx.confirm()
    except LeaseLost:
        put_back(ctx.databases, collection, fence=ctx.fence, actor=ctx.actor)
        raise
    moment: Timestamp = answer["operationTime"]
    return moment


def freezing(ctx: "Hands", collection: str, *, fence: int | str) -> tuple[Document, Command]:
    """Return the rules of *collection* as they are, and the command that lets it refuse writes.

    Args:
        ctx: Whose databases.
        collection: Its name.
        fence: Of the lease; where nobody knows it yet, what stands for it.
    """
    rules = rules_of(options_of(ctx, collection) or {})
    kept: Document = {"validator": rules.validator, "level": rules.level, "action": rules.action}
    limit = round(ctx.patience.budget.total_seconds() * 1000)
    command = alteration(
        "collMod",
        collection,
        validator=refusing(kept, fence=fence),
        validationLevel=STRICT,
        validationAction="error",
        collectionUUID=uuid_of(ctx.databases.app, collection),
        maxTimeMS=limit,
    )
    return kept, command


def is_refused(databases: Databases, collection: str, *, fence: int) -> bool:
    """Whether it is still the lease *fence* that refuses writes to *collection*."""
    return any(found.collection == collection and found.fence == fence for found in find_frozen(databases))


def thaw(ctx: "Hands", found: Document) -> None:
    """Let writes in again, unless the copy has taken the place of the collection: it has its own validator."""
    collection = found["collection"]
    if uuid_of(ctx.databases.app, collection) == found["source"]:
        kept = json_util.loads(found["frozen"], json_options=EXACT)
        alter(ctx, "collMod", collection, **_rules(kept), collectionUUID=found["source"], allowed=(ANOTHER_UUID,))


def thaw_unrecorded(ctx: "Hands", frozen: Frozen) -> None:
    """Let writes in again that a runner refuses of which nothing is recorded."""
    alter(
        ctx,
        "collMod",
        frozen.collection,
        **_rules(frozen.before),
        collectionUUID=frozen.uuid,
        allowed=(ANOTHER_UUID,),
    )


def put_back(databases: Databases, collection: str, *, fence: int, actor: str) -> bool:
    """Let writes in again that the lease *fence* refuses, which somebody else has by now; return whether it did.

    Without a lease: where it is recorded that writes are refused, or another lease refuses them, this does nothing.
    That a runner refuses them anew between this look and the command would be noticed by that runner, which looks
    whether it is still its own validator before it exchanges anything.
    """
    ours = [one for one in find_frozen(databases) if (one.collection, one.fence) == (collection, fence)]
    if not ours or collection in recorded(databases):
        return False
    with driver_errors():
        databases.app.command(
            "collMod",
            collection,
            **_rules(ours[0].before),
            collectionUUID=ours[0].uuid,
            writeConcern=MAJORITY,
        )
    _tell(databases, ours[0], actor=actor)
    return True


def _tell(databases: Databases, frozen: Frozen, *, actor: str) -> None:
    entry = Entry(
        event=f"{frozen.collection}#thaw#{frozen.fence}",
        entity_type="migration",
        entity_id="recovery",
        action="migration.step",
        created_at=SystemClock().now(),
        performed_by=actor,
        details={"op": "thaw", "collection": frozen.collection, "recorded": False},
    )
    log = AuditLog(databases, Cause(channel="migrations"))
    try:
        databases.transact(lambda session: log.append(entry, session=session))
    except DuplicateEntry:
        return  # two looked at once; writes are let in


def _rules(before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "validator": before["validator"] or {},
        "validationLevel": before["level"],
        "validationAction": before["action"],
    }
