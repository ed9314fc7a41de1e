"""Update documents until none is left to update; documents that are inserted meanwhile, too."""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from pymongo.collection import Collection

from compliance.errors import StepFailed
from compliance.mongo import Document, Session, driver_errors
from migrations.ops.aside import ids_of
from migrations.ops.batches import Changed, Walk, Work
from migrations.ops.keyset import BY_ID
from migrations.ops.pre_images import keeping
from migrations.ops.walk import begin_update, finish, sketch_update, updated

if TYPE_CHECKING:
    from migrations.hands import Hands, Update


def backfill(
    ctx: "Hands",
    collection: str,
    where: Document,
    update: "Update",
    *,
    error_budget: int,
    keep_before: timedelta | None,
) -> None:
    """Apply *update* until no document matches *where* but those that were set aside."""
    step = begin_update(ctx, "backfill", collection=collection, where=where, update=update, keep_before=keep_before)
    if step is None:
        return
    documents = ctx.databases.app[collection]

    def change(batch: Document, session: Session) -> Changed:
        changed = updated(ctx, collection, batch, update, session=session)
        if must_look(going, changed.matched) and documents.count_documents(batch, limit=1, hint=BY_ID, session=session):
            raise StepFailed(f"backfill of {collection} does not take documents out of its where; correct the script")
        return changed

    def left() -> Document:
        """Return the filter of what is still to be done: what was set aside would be refused again."""
        refused = [] if ctx.retries else ids_of(ctx, step)
        return {"$and": [where, {"_id": {"$nin": refused}}]}

    kept = keeping(ctx, step, collection, keep_before, change)
    sketch = partial(sketch_update, ctx, collection, update=update)
    work = Work(
        op="backfill", collection=collection, where=left(), change=kept, sketch=sketch, error_budget=error_budget
    )
    going = Walk(ctx=ctx, step=step, work=work)
    if ctx.retries:
        going.retry()
        return
    going.go()
    while not ctx.is_dry_run and _finds(documents, left()):
        going.begin_again(left())
        going.go()
    finish(ctx, going)


def _finds(documents: Collection[Document], where: Document) -> bool:
    with driver_errors():
        return documents.find_one(where, {"_id": 1}) is not None


def must_look(going: Walk, matched: int) -> bool:
    """Whether to see that an update takes its documents out of the where.

    The first batch that changes any says it of the script. When a collection is walked again each batch does: a
    document that was updated before and still matches must not be updated twice.
    """
    is_first = going.place["documents"] == 0
    return matched > 0 and (is_first or going.place.get("again", 0) > 0)
