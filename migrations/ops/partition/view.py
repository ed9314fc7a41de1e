"""The routing view: the collection and all of its buckets, as one to read."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.mongo import Document, driver_errors
from migrations.command import alteration, carry_out
from migrations.ops.ddl import alter
from migrations.ops.observed import options_of
from migrations.ops.partition.scheme import Scheme

if TYPE_CHECKING:
    from migrations.hands import Hands

NAMESPACE_NOT_FOUND = 26


def route(ctx: "Hands", scheme: Scheme, buckets: list[str]) -> None:
    """Let the view show the collection and *buckets*.

    The collection is read before the buckets, and documents only move from it to them: a reader without a snapshot can
    see a document twice while it moves, and never misses one.

    Raises:
        StepFailed: When a collection has the name of the view.
    """
    pipeline: list[Document] = [{"$unionWith": {"coll": name}} for name in buckets]
    found = options_of(ctx, scheme.view)
    if found is None:
        with driver_errors():
            carry_out(ctx, alteration("create", scheme.view, viewOn=scheme.collection, pipeline=pipeline))
    elif "viewOn" not in found:
        raise StepFailed(f"{scheme.view} is a collection; rename it: the view over the buckets has this name")
    elif found["pipeline"] != pipeline:
        alter(ctx, "collMod", scheme.view, viewOn=scheme.collection, pipeline=pipeline)


def remove(ctx: "Hands", scheme: Scheme) -> None:
    """Drop the view, if it is there."""
    alter(ctx, "drop", scheme.view, allowed=(NAMESPACE_NOT_FOUND,))
