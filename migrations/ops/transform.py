"""Compute new values in Python: documents are read and written in one transaction, in fenced batches."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from compliance.mongo import Document, Session, driver_errors
from migrations.command import Command, send, set_each
from migrations.ops.batches import Changed, Hiding, Work
from migrations.ops.estimate import update_bytes
from migrations.ops.keyset import BY_ID
from migrations.ops.pre_images import keeping
from migrations.ops.reason import reason_of
from migrations.ops.walk import begin, go_through
from migrations.sketch import type_of

if TYPE_CHECKING:
    from migrations.hands import Hands, Transform

SAMPLE = 100  # documents, of the first batch


def transform(
    ctx: "Hands",
    collection: str,
    where: Document,
    fields: tuple[str, ...],
    function: "Transform",
    *,
    error_budget: int,
    keep_before: timedelta | None,
) -> None:
    """Walk the documents that match *where* in the order of ``_id``, and write what *function* makes of them."""
    arguments = {"collection": collection, "where": where, "fields": fields, "function": function}
    step = begin(ctx, "transform", keep_before=keep_before, **arguments)
    if step is None:
        return
    documents = ctx.databases.app[collection]

    def change(batch: Document, session: Session) -> Changed:
        found = documents.find(batch, dict.fromkeys(fields, 1), hint=BY_ID, session=session)
        values, refused = _sort_out(found, function)
        for command in set_each(collection, values):
            send(ctx, command, session=session)
        return Changed(documents=len(values), refused=tuple(refused))

    def sketch(batch: Document, *, hiding: Hiding) -> int | None:
        del hiding  # of the documents one is shown, by its own id
        ctx.sketch.step.opaque = "values are computed by a function; one document is shown, with types for values"
        with driver_errors():
            values, _ = _sort_out(documents.find(batch, dict.fromkeys(fields, 1), hint=BY_ID).limit(SAMPLE), function)
        for command in set_each(collection, values[:1]):
            ctx.sketch.add(_masked(command), hiding=(values[0][0],))
        return max((update_bytes(ctx, collection, {"$set": dict(found)}) for _, found in values), default=None)

    kept = keeping(ctx, step, collection, keep_before, change)
    work = Work(
        op="transform", collection=collection, where=where, change=kept, sketch=sketch, error_budget=error_budget
    )
    go_through(ctx, step, work)


def _masked(command: Command) -> Command:
    """Return *command*, which sets fields of one document, with their types as values."""
    (statement,) = command.body["updates"]
    fields = {name: type_of(value) for name, value in statement["u"]["$set"].items()}
    return command.masked({**command.body, "updates": [{"q": statement["q"], "u": {"$set": fields}}]})


def _sort_out(
    found: Iterable[Document], function: "Transform"
) -> tuple[list[tuple[Any, Mapping[str, Any]]], list[tuple[Any, str]]]:
    """Return the values to set and the reasons of those that cannot be, each with the ``_id`` of its document."""
    computed: list[tuple[Any, Mapping[str, Any]]] = []
    refused: list[tuple[Any, str]] = []
    for document in found:
        try:
            values = function(document)
        except ValueError as error:
            refused.append((document["_id"], reason_of(error)))
            continue
        if values:
            computed.append((document["_id"], values))
    return computed, refused
