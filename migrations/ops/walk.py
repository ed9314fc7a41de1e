"""Update documents exactly once each, whatever a repeat of the update would do."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compliance.errors import StepFailed, StepRefused
from compliance.mongo import Document, Session, driver_errors
from migrations.ops.batches import Changed, Walk, Work
from migrations.ops.keyset import BY_ID
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.context import Context, Update

NONE: Document = {"_id": {"$in": []}}


def walk(ctx: "Context", collection: str, where: Document, update: "Update", *, error_budget: int) -> None:
    """Go through *collection* once in the order of ``_id``; an interrupted run goes on behind its last batch."""
    step = begin(ctx, "walk", collection=collection, where=where, update=update)
    if step is None:
        return
    require_update(ctx, collection, update)
    documents = ctx.databases.app[collection]

    def change(batch: Document, session: Session) -> Changed:
        return Changed(documents=documents.update_many(batch, update, hint=BY_ID, session=session).modified_count)

    work = Work(op="walk", collection=collection, where=where, change=change, error_budget=error_budget)
    going = Walk(ctx=ctx, step=step, work=work)
    if ctx.retries:
        going.retry()
        return
    going.go()
    finish(ctx, going)


def begin(ctx: "Context", op: str, **arguments: Any) -> Step | None:
    """Begin a step that goes through a collection, and say how many documents there are to change.

    Returns:
        None where nothing is to be done: it was carried out before, or this is a dry run.
    """
    collection, where = arguments["collection"], arguments["where"]
    step = ctx.begin(Kind.BACKFILL, f"{op} {collection}", **arguments)
    if step is None or ctx.retries:
        return step
    with driver_errors():
        pending = ctx.databases.app[collection].count_documents(where)
    ctx.report(f"{op} {pending} documents of {collection}")
    return None if ctx.is_dry_run else replace(step, place={"of": pending, **step.place})


def require_update(ctx: "Context", collection: str, update: "Update") -> None:
    """Let the server read *update* without a document to apply it to.

    Raises:
        StepFailed: When it is not one: no document is to blame, and none is set aside.
    """
    try:
        with driver_errors():
            ctx.databases.app[collection].update_many(NONE, update)
    except StepRefused as error:
        raise StepFailed(f"the update of {collection} is not one: {error}; correct the script") from None


def finish(ctx: "Context", going: Walk) -> None:
    """End the step, and say how many documents were set aside."""
    place, work = going.place, going.work
    total = {"documents": place["documents"], "set_aside_in_all": place["aside"]}
    ctx.finish(going.step, {"op": work.op, "collection": work.collection, "is_done": True, **total})
    if place["aside"]:
        ctx.report(f"set aside {place['aside']} documents of {work.collection}: see set_aside")
