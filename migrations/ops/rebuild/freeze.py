"""Refuse writes to a collection for a moment, and let them in again, whatever dies in between.

A validator that refuses everything stops inserts and updates with code 121; deletes it does not stop. That it is there
is recorded before, with what was there before it: whoever migrates next lets writes in again first. It does not end by
itself: MongoDB takes ``$$NOW`` in a validator for the moment in which the validator was made (measured on 6.0.5).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson import Timestamp, json_util
from pymongo.errors import ExecutionTimeout

from compliance.errors import StoreUnavailable
from compliance.mongo import Databases, Document, Session, driver_errors
from compliance.roles import CONTROL, shadow_of
from migrations.command import Command, alteration, send
from migrations.ops.observed import options_of
from migrations.ops.rebuild.changes import follow, now_of
from migrations.ops.rebuild.shadow import find_by_uuid, record, rename, uuid_of
from migrations.ops.validator import STRICT, Rules, enforce, rules_of
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

NOTHING: Document = {"$expr": {"$eq": [0, 1]}}
SETTLING = Step(number=0, kind=Kind.DDL, what="settle a rebuilding that died", digest="")
MANY, LOOKS = 1000, 1000


class FreezeTooLong(Exception):
    """Writes would be refused for longer than they may be."""


def freeze(ctx: "Hands", step: Step, collection: str, *, place: Mapping[str, Any]) -> Timestamp:
    """Refuse writes to *collection*; return the time since when they are refused.

    Raises:
        FreezeTooLong: When the collection is in use and the command did not get its lock at once.
    """
    rules = rules_of(options_of(ctx, collection) or {})
    kept = {"validator": rules.validator, "level": rules.level, "action": rules.action}

    def effect(session: Session) -> None:
        record(
            ctx,
            collection,
            {"frozen": json_util.dumps(kept, json_options=json_util.CANONICAL_JSON_OPTIONS)},
            session=session,
        )

    ctx.commit(step, {"op": "freeze", "collection": collection}, effect, place=lambda: place)
    ctx.check()
    with driver_errors():
        try:
            answer = send(ctx, refusing(ctx, collection))
        except ExecutionTimeout:
            raise FreezeTooLong from None
    moment: Timestamp = answer["operationTime"]
    return moment


def refusing(ctx: "Hands", collection: str) -> Command:
    """Return the command that lets *collection* refuse writes."""
    limit = round(ctx.patience.budget.total_seconds() * 1000)
    rules: Document = {"validator": NOTHING, "validationLevel": STRICT, "validationAction": "error"}
    return alteration("collMod", collection, **rules, maxTimeMS=limit)


def is_frozen(databases: Databases) -> bool:
    """Whether writes to a collection are refused, as far as it is recorded."""
    with driver_errors():
        return databases.compliance[CONTROL].find_one({"frozen": {"$exists": True}}, {"_id": 1}) is not None


def thaw(ctx: "Hands", found: Document) -> None:
    """Let writes in again, unless the copy has taken the place of the collection: it has its own validator."""
    collection = found["collection"]
    if uuid_of(ctx.databases.app, collection) == found["source"]:
        kept = json_util.loads(found["frozen"], json_options=json_util.CANONICAL_JSON_OPTIONS)
        enforce(ctx, collection, Rules(validator=kept["validator"], level=kept["level"], action=kept["action"]))


def recover(ctx: "Hands", step: Step = SETTLING, place: Mapping[str, Any] | None = None) -> None:
    """Settle what a runner left that died while writes were refused: first take the copy out of its reach.

    The copy gets its own name back, so that a runner that wakes up renames nothing; then writes are let in. Where the
    two were exchanged, what was deleted at the last moment is deleted.

    Args:
        ctx: Under the lease.
        step: What goes on, if anything.
        place: Where it stands.
    """
    with driver_errors():
        left = list(ctx.databases.compliance[CONTROL].find({"frozen": {"$exists": True}}))
    for found in left:
        collection = found["collection"]
        name, working = find_by_uuid(ctx.databases.app, found["shadow"]), shadow_of(collection)
        if name == collection:
            settle(ctx, step, found, place=place or {})
            continue
        if name is not None and name != working:
            rename(ctx, name, working)
        thaw(ctx, found)

        def effect(session: Session, found: Document = found) -> None:
            ctx.databases.compliance[CONTROL].update_one(
                {"_id": found["_id"]}, {"$unset": {"frozen": ""}}, session=session
            )

        ctx.commit(step, {"op": "thaw", "collection": collection}, effect, place=lambda: place or {})
        ctx.report(f"{collection}: writes are let in again")


def settle(ctx: "Hands", step: Step, found: Document, *, place: Mapping[str, Any]) -> dict[str, int]:
    """End a rebuilding behind the exchange: delete what was deleted between the last look and the exchange.

    Returns:
        How many documents that were, and how many others were written late, past the validator.
    """
    collection, database = found["collection"], ctx.databases.app
    late: dict[bytes, Any] = {}
    others: set[bytes] = set()
    with follow(ctx.databases, collection, found["token"]) as stream:
        for _ in range(LOOKS):
            ctx.check()
            some = stream.next(MANY)
            others |= some.ids.keys() - some.deleted.keys()
            late |= some.deleted
            if some.is_exchanged:
                break
        else:
            raise StoreUnavailable(f"the exchange of {collection} is not in the change stream yet; migrate again")
        now = now_of(ctx.databases)
        is_behind = True
        while is_behind:
            since = stream.next(MANY)
            late = {key: id_ for key, id_ in late.items() if key not in since.ids}
            is_behind = not since.is_last and since.upto < now
    counts = {"deleted_late": 0, "written_late": len(others)}

    def effect(session: Session) -> dict[str, int]:
        counts["deleted_late"] = 0
        if late:
            counts["deleted_late"] = (
                database[collection].delete_many({"_id": {"$in": list(late.values())}}, session=session).deleted_count
            )
        control = ctx.databases.compliance[CONTROL]
        control.update_one(
            {"_id": found["_id"]}, {"$set": {"is_over": True}, "$unset": {"frozen": "", "token": ""}}, session=session
        )
        return dict(counts)

    ctx.commit(
        step, {"op": "settle", "collection": collection}, effect, place=lambda: {**place, "phase": "over", **counts}
    )
    return counts
