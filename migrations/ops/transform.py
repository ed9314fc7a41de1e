"""Compute new values in Python: documents are read and written in one transaction, in fenced batches."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from compliance.mongo import Document, Session
from migrations.ops.batches import Changed, Walk, Work
from migrations.ops.keyset import BY_ID
from migrations.ops.walk import begin, finish

if TYPE_CHECKING:
    from migrations.context import Context, Transform


def transform(
    ctx: "Context",
    collection: str,
    where: Document,
    fields: tuple[str, ...],
    function: "Transform",
    *,
    error_budget: int,
) -> None:
    """Walk the documents that match *where* in the order of ``_id``, and write what *function* makes of them."""
    arguments = {"collection": collection, "where": where, "fields": fields, "function": function}
    step = begin(ctx, "transform", **arguments)
    if step is None:
        return
    documents = ctx.databases.app[collection]

    def change(batch: Document, session: Session) -> Changed:
        found = documents.find(batch, dict.fromkeys(fields, 1), hint=BY_ID, session=session)
        writes, refused = _sort_out(found, function)
        if writes:
            documents.bulk_write(writes, session=session)
        return Changed(documents=len(writes), refused=tuple(refused))

    work = Work(op="transform", collection=collection, where=where, change=change, error_budget=error_budget)
    going = Walk(ctx=ctx, step=step, work=work)
    if ctx.retries:
        going.retry()
        return
    going.go()
    finish(ctx, going)


def _sort_out(found: Iterable[Document], function: "Transform") -> tuple[list[UpdateOne], list[tuple[Any, str]]]:
    writes: list[UpdateOne] = []
    refused: list[tuple[Any, str]] = []
    for document in found:
        try:
            values = function(document)
        except ValueError as error:
            refused.append((document["_id"], str(error)))
            continue
        if values:
            writes.append(UpdateOne({"_id": document["_id"]}, {"$set": dict(values)}))
    return writes, refused
