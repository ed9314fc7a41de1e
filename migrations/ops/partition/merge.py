"""The way back: bring the documents of the buckets back into their collection, and drop buckets and view."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED
from compliance.mongo import Session, driver_errors
from migrations.ops.ddl import alter
from migrations.ops.partition.move import move, sketch_move
from migrations.ops.partition.scheme import Scheme, find_scheme, present_buckets
from migrations.ops.partition.view import NAMESPACE_NOT_FOUND, remove
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands


def merge(ctx: "Hands", collection: str) -> None:
    """Bring everything back; nothing to do where *collection* is not partitioned."""
    scheme = find_scheme(ctx, collection)
    _move_back(ctx, collection, scheme)
    _drop(ctx, collection, scheme)


def _move_back(ctx: "Hands", collection: str, scheme: Scheme | None) -> None:
    step = ctx.begin(Kind.BACKFILL, f"bring the documents of the buckets of {collection} back", collection=collection)
    if step is None:
        return
    ctx.report(step.what)
    if ctx.is_dry_run:
        for bucket in present_buckets(ctx, scheme) if scheme else ():
            sketch_move(ctx, bucket.name, {}, lambda _: collection)
        return
    moved: int = step.place.get("documents", 0)
    for bucket in present_buckets(ctx, scheme) if scheme else ():
        moved = move(ctx, step, bucket.name, {}, lambda _: collection, op="merge", moved=moved)
    ctx.finish(step, {"op": "merge", "collection": collection, "documents": moved, "is_done": True})


def _drop(ctx: "Hands", collection: str, scheme: Scheme | None) -> None:
    step = ctx.begin(Kind.DDL, f"drop the buckets of {collection}", collection=collection, dropped="buckets")
    if step is None:
        return
    ctx.report(step.what)
    dropped = _drop_empty(ctx, scheme) if scheme else []
    if ctx.is_dry_run:
        return

    def effect(session: Session) -> None:
        ours = ctx.databases.compliance[DECLARED]
        ours.delete_many({"collection": {"$in": dropped}}, session=session)
        ours.delete_one({"_id": f"partition:{collection}"}, session=session)

    ctx.finish(step, {"op": "drop_buckets", "collection": collection, "dropped": dropped}, effect)


def _drop_empty(ctx: "Hands", scheme: Scheme) -> list[str]:
    """Drop the view and the buckets.

    Raises:
        StepFailed: When somebody wrote into one since; nothing was dropped.
    """
    names = [bucket.name for bucket in present_buckets(ctx, scheme)]
    with driver_errors():
        filled = [name for name in names if ctx.databases.app[name].count_documents({}, limit=1)]
    if filled and not ctx.is_dry_run:  # there they are to be moved back
        raise StepFailed(f"somebody writes into {filled[0]}; let it write into {scheme.collection}, then migrate again")
    remove(ctx, scheme)
    for name in names:
        alter(ctx, "drop", name, allowed=(NAMESPACE_NOT_FOUND,))
    return names
