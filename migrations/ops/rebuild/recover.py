"""Settle what a runner left: writes that are refused, and what was deleted at the last moment before an exchange."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compliance.audit.entry import Detail
from compliance.erasure.frozen import find_frozen
from compliance.errors import RejectedError, StepFailed, StoreUnavailable
from compliance.mongo import Document, Session, driver_errors
from compliance.roles import CONTROL, shadow_of
from migrations.ops.rebuild.changes import Changes, HistoryLost, Stream, follow, now_of
from migrations.ops.rebuild.freeze import thaw, thaw_unrecorded
from migrations.ops.rebuild.shadow import find_by_uuid, find_record, rename, uuid_of
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SETTLING = Step(number=0, kind=Kind.DDL, what="settle a rebuilding that died", digest="")
MANY, LOOKS = 1000, 1000


def recover(ctx: "Hands", step: Step = SETTLING, place: Mapping[str, Any] | None = None) -> None:
    """Settle what a runner left that died while writes were refused: first take the copy out of its reach.

    The copy gets its own name back, so that a runner that wakes up renames nothing; then writes are let in. Where the
    two were exchanged, what was deleted at the last moment is deleted. Last come collections that refuse writes though
    nothing is recorded: a runner slept past its lease, and died when it woke up.

    Args:
        ctx: Under the lease.
        step: What goes on, if anything.
        place: Where it stands.

    Raises:
        StepFailed: When the oplog does not tell any more what was deleted; the message says what to do.
    """
    with driver_errors():
        left = list(ctx.databases.compliance[CONTROL].find({"frozen": {"$exists": True}}))
    names = [found["collection"] for found in left]
    unrecorded = [frozen for frozen in find_frozen(ctx.databases) if frozen.collection not in names]
    if not left and not unrecorded:
        return
    ctx.confirm()  # who slept past its lease would let writes in that its successor refuses
    for found in left:
        _recover_one(ctx, step, found, place or {})
    for frozen in unrecorded:
        thaw_unrecorded(ctx, frozen)
        details: dict[str, Detail] = {"op": "thaw", "collection": frozen.collection, "recorded": False}
        ctx.commit(step, details, place=lambda: place or {})
        ctx.report(f"{frozen.collection}: writes are let in again, which a runner refused behind the end of its lease")


def _recover_one(ctx: "Hands", step: Step, found: Document, place: Mapping[str, Any]) -> None:
    collection = found["collection"]
    name, working = find_by_uuid(ctx.databases.app, found["shadow"]), shadow_of(collection)
    if name == collection:
        settle(ctx, step, found, place=place)
        return
    if name is not None and name != working:
        rename(ctx, name, working)
    thaw(ctx, found)

    def effect(session: Session) -> None:
        ctx.databases.compliance[CONTROL].update_one({"_id": found["_id"]}, {"$unset": {"frozen": ""}}, session=session)

    ctx.commit(step, {"op": "thaw", "collection": collection}, effect, place=lambda: place)
    ctx.report(f"{collection}: writes are let in again")


def settle(ctx: "Hands", step: Step, found: Document, *, place: Mapping[str, Any]) -> dict[str, int]:
    """End a rebuilding behind the exchange: delete what was deleted between the last look and the exchange.

    Returns:
        How many documents that were, and how many others were written late, past the validator.

    Raises:
        StepFailed: When the oplog does not tell any more what was deleted.
    """
    collection, database = found["collection"], ctx.databases.app
    try:
        some = _look_back(ctx, found)
    except HistoryLost:
        raise StepFailed(
            f"{collection} was exchanged, and the oplog does not tell any more what was deleted in the moment before; "
            "the collection that would say it is gone. Look for documents that the application deleted, then "
            f"`compliance migrate repair --exchange {collection} --reason TEXT`"
        ) from None
    late = some.deleted
    counts = {"deleted_late": 0, "written_late": len(some.ids.keys() - some.deleted.keys())}

    def effect(session: Session) -> dict[str, int]:
        counts["deleted_late"] = 0
        if late:
            counts["deleted_late"] = (
                database[collection].delete_many({"_id": {"$in": list(late.values())}}, session=session).deleted_count
            )
        _end(ctx, found, session)
        return dict(counts)

    ctx.commit(
        step, {"op": "settle", "collection": collection}, effect, place=lambda: {**place, "phase": "over", **counts}
    )
    return counts


def accept_exchange(ctx: "Hands", collection: str, *, reason: str) -> bool:
    """Let an exchange count as settled that the oplog tells nothing of any more; False where it could be settled.

    Raises:
        RejectedError: When no exchange of *collection* waits for that.
    """
    found = find_record(ctx, collection)
    is_exchanged = found is not None and found["shadow"] == uuid_of(ctx.databases.app, collection)
    if found is None or "frozen" not in found or not is_exchanged:
        raise RejectedError(f"no exchange of {collection} waits to be settled")
    try:
        _look_back(ctx, found)
    except HistoryLost:
        details = {"op": "accept_exchange", "collection": collection, "reason": reason}
        ctx.commit(SETTLING, details, lambda session: _end(ctx, found, session), place=dict)
        return True
    settle(ctx, SETTLING, found, place={})
    return False


def _look_back(ctx: "Hands", found: Document) -> Changes:
    """Return what happened between the last look and the exchange; what was written again since is not *deleted*."""
    with follow(ctx.databases, found["collection"], found["token"]) as stream:
        late = _up_to_exchange(ctx, stream)
        now = now_of(ctx.databases)
        is_behind = True
        while is_behind:
            since = stream.next(MANY, upto=now)
            late.deleted = {key: id_ for key, id_ in late.deleted.items() if key not in since.ids}
            is_behind = not since.is_last and since.upto < now
    return late


def _up_to_exchange(ctx: "Hands", stream: Stream) -> Changes:
    late = Changes()
    for _ in range(LOOKS):
        ctx.check()
        some = stream.next(MANY)
        late.ids |= some.ids
        late.deleted = {**{key: id_ for key, id_ in late.deleted.items() if key not in some.ids}, **some.deleted}
        if some.is_exchanged:
            return late
    raise StoreUnavailable(f"the exchange of {stream.collection} is not in the change stream yet; migrate again")


def _end(ctx: "Hands", found: Document, session: Session) -> None:
    ctx.databases.compliance[CONTROL].update_one(
        {"_id": found["_id"]}, {"$set": {"is_over": True}, "$unset": {"frozen": "", "token": ""}}, session=session
    )
