"""Move documents from one collection to others: each batch is one fenced transaction, so each document moves once."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pymongo.collection import Collection

from compliance.audit.entry import Detail
from compliance.errors import StepFailed
from compliance.mongo import Document, Session, driver_errors
from migrations.command import Command, delete_many, insert_each, send
from migrations.ops.estimate import estimate_move
from migrations.ops.keyset import page
from migrations.ops.pre_images import EXACT
from migrations.sketch import masked_insert
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SHOWN = 5
WALKS = 3
Target = Callable[[Document], str | None]


def move(ctx: "Hands", step: Step, collection: str, where: Document, target: Target, *, op: str, moved: int) -> int:
    """Move what matches *where* in walks over the collection, until one finds nothing, or the last of three is done.

    What a writer adds behind a walk is caught by the next one; what it adds afterwards, when the step is run again.
    Documents for which *target* has no collection stay.

    Returns:
        *moved*, what earlier parts of this step moved, and what was moved here.
    """
    for _ in range(WALKS):
        before = moved
        place: Mapping[str, Any] = {}
        while ids := page(ctx.databases.app[collection], where, place, limit=ctx.batch_docs):
            moved += _move_batch(ctx, step, collection, ids, where, target, op=op, moved=moved)
            if len(ids) < ctx.batch_docs:
                break
            place = {"last": ids[-1]}
        if moved == before:
            break
    return moved


def _move_batch(
    ctx: "Hands",
    step: Step,
    collection: str,
    ids: list[Any],
    where: Document,
    target: Target,
    *,
    op: str,
    moved: int,
) -> int:
    app, batch = ctx.databases.app, 0

    def effect(session: Session) -> Mapping[str, Detail]:
        nonlocal batch
        apart: dict[str, list[Document]] = {}
        for document in exact(app[collection]).find({"$and": [{"_id": {"$in": ids}}, where]}, session=session):
            name = target(document)
            if name is not None:
                apart.setdefault(name, []).append(document)
        for name, documents in apart.items():
            _refuse_taken(ctx, name, documents, session)
        gone = [document["_id"] for documents in apart.values() for document in documents]
        answers = [send(ctx, command, session=session) for command in _commands(collection, apart)]
        if answers and answers[-1]["n"] != len(gone):
            raise StepFailed(f"{collection} has two documents of one _id; correct them, then migrate again")
        batch = len(gone)
        return {"batch": batch}

    details: Mapping[str, Detail] = {"op": op, "collection": collection}
    ctx.commit(step, details, effect, place=lambda: {"documents": moved + len(ids)})
    return batch


def _commands(collection: str, apart: Mapping[str, list[Document]]) -> list[Command]:
    """Return what moves documents; the last of them takes all of them out of *collection*."""
    inserts = [command for name, documents in apart.items() for command in insert_each(name, documents, bypass=True)]
    gone = [document["_id"] for documents in apart.values() for document in documents]
    return [*inserts, delete_many(collection, {"_id": {"$in": gone}})] if gone else []


def sketch_move(ctx: "Hands", collection: str, where: Document, target: Target) -> None:
    """Record what moves the first batch, with no more of the documents than the types of their fields."""
    ids = page(ctx.databases.app[collection], where, {}, limit=ctx.batch_docs)
    apart: dict[str, list[Document]] = {}
    with driver_errors():
        for document in exact(ctx.databases.app[collection]).find({"_id": {"$in": ids}}):
            name = target(document)
            if name is not None:
                apart.setdefault(name, []).append(document)
    for command in _commands(collection, apart):
        ctx.sketch.add(masked_insert(command), hiding=tuple(ids))
    ctx.sketch.step.estimate = estimate_move(ctx, collection, where, batch_docs=ctx.batch_docs)


def exact(collection: Collection[Document]) -> Collection[Document]:
    """Return *collection* to be read with dates that Python has not."""
    return collection.with_options(codec_options=EXACT)


def _refuse_taken(ctx: "Hands", name: str, documents: list[Document], session: Session) -> None:
    ids = [document["_id"] for document in documents]
    taken = [found["_id"] for found in ctx.databases.app[name].find({"_id": {"$in": ids}}, {"_id": 1}, session=session)]
    if taken:
        shown = ", ".join(map(str, taken[:SHOWN]))
        raise StepFailed(f"{name} has {len(taken)} other documents of the same _id: {shown}; correct them first")
