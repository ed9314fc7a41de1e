"""Change documents in fenced batches; documents that cannot be changed are set aside, not lost.

Document shape (``set_aside``)::

    {_id: ObjectId, revision: str, collection: str, document_id: any, reason: str, at: date}
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, UpdateOne

from compliance.audit.entry import Detail
from compliance.errors import StepFailed
from compliance.mongo import Document, Session, driver_errors
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.context import Context, Transform

SET_ASIDE = "set_aside"
ERROR_BUDGET = 100


def backfill(ctx: "Context", collection: str, where: Document, update: Document) -> None:
    """Apply *update* until no document matches *where*."""
    step = ctx.begin(Kind.BACKFILL, f"backfill {collection}", collection=collection, where=where, update=update)
    if step is None:
        return
    documents = ctx.databases.app[collection]
    with driver_errors():
        pending = documents.count_documents(where)
    ctx.report(f"backfill {pending} documents of {collection}")
    if ctx.is_dry_run:
        return
    total: int = step.place.get("documents", 0)
    while ids := _ids(ctx, collection, where):
        changed = 0

        def effect(session: Session, ids: list[Any] = ids) -> None:
            nonlocal changed
            guarded = {"$and": [{"_id": {"$in": ids}}, where]}
            changed = documents.update_many(guarded, update, session=session).modified_count
            if documents.count_documents(guarded, limit=1, session=session):
                raise StepFailed(
                    f"backfill of {collection} does not take documents out of its where; correct the script"
                )

        done = {"documents": total + len(ids)}
        ctx.commit(step, {"op": "backfill", "collection": collection, "batch": len(ids)}, effect, place=done)
        total += changed
    ctx.finish(step, {"op": "backfill", "collection": collection, "documents": total, "is_done": True})


def transform(ctx: "Context", collection: str, where: Document, fields: tuple[str, ...], function: "Transform") -> None:
    """Walk the documents that match *where* in the order of ``_id``, and write what *function* makes of them."""
    arguments = {"collection": collection, "where": where, "fields": fields, "function": function}
    step = ctx.begin(Kind.BACKFILL, f"transform {collection}", **arguments)
    if step is None:
        return
    with driver_errors():
        pending = ctx.databases.app[collection].count_documents(where)
    ctx.report(f"transform {pending} documents of {collection}")
    if ctx.is_dry_run:
        return
    place, aside = step.place, 0
    while ids := _page(ctx, collection, where, place):
        place = {"last": ids[-1]}
        aside += _transform_batch(ctx, step, collection, ids, where, fields, function)
        if aside > ERROR_BUDGET:
            raise StepFailed(f"more than {ERROR_BUDGET} documents of {collection} were set aside; correct the script")
    ctx.finish(step, {"op": "transform", "collection": collection, "is_done": True})
    if aside:
        ctx.report(f"set aside {aside} documents of {collection}: see {SET_ASIDE}")


def _transform_batch(
    ctx: "Context",
    step: Step,
    collection: str,
    ids: list[Any],
    where: Document,
    fields: tuple[str, ...],
    function: "Transform",
) -> int:
    """Transform the documents of *ids*: read and written in one transaction, so no concurrent change is overwritten."""
    aside = 0

    def effect(session: Session) -> Mapping[str, Detail]:
        nonlocal aside
        documents = ctx.databases.app[collection]
        batch = documents.find({"$and": [{"_id": {"$in": ids}}, where]}, dict.fromkeys(fields, 1), session=session)
        writes, poison = _sort_out(ctx, collection, batch, function)
        if writes:
            documents.bulk_write(writes, session=session)
        if poison:
            ctx.databases.compliance[SET_ASIDE].insert_many(poison, session=session)
        aside = len(poison)
        return {"set_aside": aside}

    details: Mapping[str, Detail] = {"op": "transform", "collection": collection, "batch": len(ids)}
    ctx.commit(step, details, effect, place={"last": ids[-1]})
    return aside


def _sort_out(
    ctx: "Context", collection: str, batch: Iterable[Document], function: "Transform"
) -> tuple[list[UpdateOne], list[Document]]:
    writes: list[UpdateOne] = []
    poison: list[Document] = []
    for document in batch:
        try:
            values = function(document)
        except ValueError as error:
            poison.append(_poison(ctx, collection, document, str(error)))
            continue
        if values:
            writes.append(UpdateOne({"_id": document["_id"]}, {"$set": dict(values)}))
    return writes, poison


def _poison(ctx: "Context", collection: str, document: Document, reason: str) -> Document:
    now = ctx.run.clock.now() if ctx.run else None
    return {
        "revision": ctx.revision,
        "collection": collection,
        "document_id": document["_id"],
        "reason": reason,
        "at": now,
    }


def _ids(ctx: "Context", collection: str, where: Document) -> list[Any]:
    with driver_errors():
        found = ctx.databases.app[collection].find(where, {"_id": 1}).limit(ctx.batch_docs)
        return [document["_id"] for document in found]


def _page(ctx: "Context", collection: str, where: Document, place: Mapping[str, Any]) -> list[Any]:
    """Read the next ids: ``$expr`` compares ``_id`` across BSON types, where a plain ``$gt`` would stay within one."""
    behind: list[Document] = [{"$expr": {"$gt": ["$_id", {"$literal": place["last"]}]}}] if place else []
    with driver_errors():
        found = ctx.databases.app[collection].find({"$and": [where, *behind]}, {"_id": 1})
        return [document["_id"] for document in found.sort("_id", ASCENDING).limit(ctx.batch_docs)]
