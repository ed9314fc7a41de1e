"""Look whether the data is as the script says; nothing is written but that somebody looked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymongo.read_concern import ReadConcern

from compliance.errors import MigrationError, StepFailed
from compliance.mongo import Document, driver_errors
from migrations.ops.estimate import estimate_look
from migrations.step import Kind
from migrations.verification import BOUNDS, bounds_of, is_within

if TYPE_CHECKING:
    from migrations.hands import Hands

SHOWN = 5


def verify(ctx: "Hands", collection: str, none: Document | None, count: Mapping[str, Any] | None) -> None:
    """Raise unless no document matches *none*, or the number of documents is within the bounds of *count*.

    Raises:
        StepFailed: With the number, and up to five ids of documents that should not be there.
    """
    if (none is None) == (count is None) or not set(count or {}) <= {"where", *BOUNDS}:
        raise MigrationError(
            f"verify of {collection}: give none={{filter}}, or count={{where: filter, {' or '.join(BOUNDS)}: number}}"
        )
    step = ctx.begin(Kind.VERIFY, f"verify {collection}", collection=collection, none=none, count=count)
    if step is None:
        return
    where = none if none is not None else dict(count or {}).get("where", {})
    if ctx.is_dry_run and ctx.inspection is None:
        estimate = ctx.sketch.step.estimate = estimate_look(ctx, collection, where)
        ctx.report(f"verify {collection}: {estimate.documents} documents match as they are")
        return
    documents = ctx.databases.app[collection].with_options(read_concern=ReadConcern("majority"))
    with driver_errors():
        found = documents.count_documents(where)
    if ctx.inspection is not None:
        ctx.inspection.look(collection, found, none=none is not None, count=count or {})
        return
    ctx.report(f"verify {collection}: {found} documents match")
    if none is not None and found:
        with driver_errors():
            ids = [repr(one["_id"]) for one in documents.find(where, {"_id": 1}).limit(SHOWN)]
        more = f" and {found - SHOWN} more" if found > SHOWN else ""
        raise StepFailed(f"{found} documents of {collection} are not as they should be: {', '.join(ids)}{more}")
    if count is not None and not is_within(found, count):
        raise StepFailed(f"{collection} holds {found} such documents, and should hold {bounds_of(count)}")
    ctx.finish(step, {"op": "verify", "collection": collection, "documents": found})
