"""Update documents exactly once each, whatever a repeat of the update would do."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from pymongo.collection import Collection

from compliance.errors import StepFailed, StepRefused
from compliance.mongo import Document, Session, driver_errors
from migrations.command import ID_INDEX, send, update_many
from migrations.ops.batches import Changed, Hiding, Walk, Work
from migrations.ops.estimate import count_within, update_bytes
from migrations.ops.pre_images import keeping
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands, Update

COUNTED, SAMPLE = 100_000, 1000  # documents
NONE: Document = {"_id": {"$in": []}}


def walk(
    ctx: "Hands",
    collection: str,
    where: Document,
    update: "Update",
    *,
    error_budget: int,
    keep_before: timedelta | None,
) -> None:
    """Go through *collection* once in the order of ``_id``; an interrupted run goes on behind its last batch."""
    step = begin_update(ctx, "walk", collection=collection, where=where, update=update, keep_before=keep_before)
    if step is None:
        return

    def change(batch: Document, session: Session) -> Changed:
        return updated(ctx, collection, batch, update, session=session)

    kept = keeping(ctx, step, collection, keep_before, change)
    sketch = partial(sketch_update, ctx, collection, update=update)
    work = Work(op="walk", collection=collection, where=where, change=kept, sketch=sketch, error_budget=error_budget)
    go_through(ctx, step, work)


def go_through(ctx: "Hands", step: Step, work: Work) -> None:
    """Carry *work* through its collection once and end the step; or try again what was set aside."""
    going = Walk(ctx=ctx, step=step, work=work)
    if ctx.retries:
        going.retry()
        return
    going.go()
    finish(ctx, going)


def begin_update(
    ctx: "Hands", op: str, *, collection: str, where: Document, update: "Update", keep_before: timedelta | None
) -> Step | None:
    """Begin a step that carries *update* through *collection*, as ``begin`` does, unless it is no update.

    Raises:
        StepFailed: When the server cannot read *update*.
    """
    step = begin(ctx, op, keep_before=keep_before, collection=collection, where=where, update=update)
    if step is not None:
        _require_update(ctx, collection, update)
    return step


def begin(ctx: "Hands", op: str, *, keep_before: timedelta | None = None, **arguments: Any) -> Step | None:
    """Begin a step that goes through a collection, and say how many documents there are to change.

    Returns:
        None where it was carried out before.
    """
    collection, where = arguments["collection"], arguments["where"]
    if keep_before is not None:  # else a step that an earlier release began would count as edited
        arguments["keep_before"] = keep_before.total_seconds()
    step = ctx.begin(Kind.BACKFILL, f"{op} {collection}", **arguments)
    if step is None or ctx.retries:
        return step
    if ctx.is_dry_run:
        pending, is_counted = count_within(ctx, collection, where)
        ctx.report(f"{op} {'' if is_counted else 'at most '}{pending} documents of {collection}")
        return step
    with driver_errors():
        pending, is_exact = estimate(ctx.databases.app[collection], where)
    ctx.report(f"{op} {'' if is_exact else 'about '}{pending} documents of {collection}")
    return replace(step, place={"of": pending, **step.place})


def updated(ctx: "Hands", collection: str, batch: Document, update: "Update", *, session: Session) -> Changed:
    """Update the documents of a batch in the transaction of *session*."""
    answer = send(ctx, update_many(collection, batch, update, hint=ID_INDEX), session=session)
    return Changed(documents=answer["nModified"], matched=answer["n"])


def sketch_update(ctx: "Hands", collection: str, batch: Document, *, update: "Update", hiding: Hiding) -> int:
    """Record what updates the documents of a batch; return what one of them takes in the oplog, in bytes."""
    ctx.sketch.add(update_many(collection, batch, update, hint=ID_INDEX), hiding=hiding)
    return update_bytes(ctx, collection, update)


def estimate(documents: Collection[Document], where: Document) -> tuple[int, bool]:
    """Return how many documents match *where*, and whether they were counted: of a large collection a sample says it.

    A count reads every document, which of a large collection takes as long as several of its batches.
    """
    size = documents.estimated_document_count()
    if size <= COUNTED:
        return documents.count_documents(where), True
    sampled = documents.aggregate([{"$sample": {"size": SAMPLE}}, {"$match": where}, {"$count": "found"}])
    return sum(size * one["found"] // SAMPLE for one in sampled), False


def _require_update(ctx: "Hands", collection: str, update: "Update") -> None:
    """Let the server read *update* without a document to apply it to.

    Raises:
        StepFailed: When it is not one: no document is to blame, and none is set aside.
    """
    if ctx.is_dry_run:
        return  # even an update of nothing takes the right to write
    try:
        with driver_errors():
            send(ctx, update_many(collection, NONE, update))
    except StepRefused as error:
        raise StepFailed(f"the update of {collection} is not one: {error}; correct the script") from None


def finish(ctx: "Hands", going: Walk) -> None:
    """End the step, and say how many documents were set aside."""
    if ctx.is_dry_run:
        return
    place, work = going.place, going.work
    total = {"documents": place["documents"], "set_aside_in_all": place["aside"]}
    cost = {"documents": place["documents"], "work_ms": round(place.get("seconds", 0.0) * 1000)}
    ctx.finish(going.step, {"op": work.op, "collection": work.collection, "is_done": True, **total}, cost=cost)
    if place["aside"]:
        ctx.report(f"set aside {place['aside']} documents of {work.collection}: see set_aside")
