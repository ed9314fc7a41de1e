"""What a step would cost, read before it runs: documents, how they are found, time, bytes in the oplog; reads only."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from compliance.mongo import CODEC, Databases, Document, driver_errors, translate
from migrations.command import ID_INDEX
from migrations.journal import measured_rate
from migrations.sketch import Estimate, Oplog

if TYPE_CHECKING:
    from migrations.hands import Hands, Update

COUNT_LIMIT = timedelta(seconds=5)
ASSUMED_RATE = 5_000.0  # documents a second that are changed in fenced batches
LOOK_RATE = 200_000.0  # documents a second that are only looked at
BUILD_RATE = 50_000.0  # documents a second that an index build reads and sorts
BATCH_BYTES = 2_000  # in the oplog beside the documents: the audit entry, the lease and the frame of the transaction
NAMESPACE_NOT_FOUND, BAD_VALUE = 26, 2
OPLOG = "oplog.rs"


def read_oplog(databases: Databases) -> Oplog | None:
    """Return what the oplog holds; None where this user may not look, or where there is none."""
    try:
        size = int(databases.client.get_database("local").command("collStats", OPLOG)["maxSize"])
        oplog = databases.client.admin.command({"serverStatus": 1, "oplog": 1})["oplog"]
    except (OperationFailure, KeyError):
        return None
    except PyMongoError as error:
        raise translate(error) from None
    return Oplog(size_bytes=size, seconds=float(oplog["latestOptime"].time - oplog["earliestOptime"].time))


def count_within(ctx: "Hands", collection: str, where: Document) -> tuple[int, bool]:
    """Return how many documents match, and True; where that takes too long how many there are at all, and False."""
    documents = ctx.databases.app[collection]
    with driver_errors():
        try:
            return documents.count_documents(where, maxTimeMS=round(COUNT_LIMIT.total_seconds() * 1000)), True
        except ExecutionTimeout:
            return documents.estimated_document_count(), False


def estimate_walk(
    ctx: "Hands", collection: str, where: Document, *, batch_docs: int, document_bytes: int | None
) -> Estimate:
    """Return what it costs to go through *collection* and change what matches *where*.

    Args:
        batch_docs: How many documents the first batch looks at.
        document_bytes: What the change of one document takes in the oplog; None where that is not known.
    """
    documents, is_counted = count_within(ctx, collection, where)
    all_of_them = _documents(ctx, collection)
    batches = -(-all_of_them // batch_docs)
    found = measured_rate(ctx.databases)
    rate = found or ASSUMED_RATE
    return Estimate(
        collection=collection,
        documents=documents,
        is_counted=is_counted,
        collection_documents=all_of_them,
        scan=scan_of(ctx, collection, where, hint=ID_INDEX),
        seconds=documents / rate + all_of_them / LOOK_RATE,
        rate=rate,
        is_measured=found is not None,
        batch_docs=batch_docs,
        batches=batches,
        oplog_bytes=None if document_bytes is None else documents * document_bytes + batches * BATCH_BYTES,
    )


def estimate_move(ctx: "Hands", collection: str, where: Document, *, batch_docs: int) -> Estimate:
    """Return what it costs to move documents: each is written whole, and removed."""
    moved = copy_bytes(ctx, collection) + update_bytes(ctx, collection, {})
    return estimate_walk(ctx, collection, where, batch_docs=batch_docs, document_bytes=moved)


def copy_bytes(ctx: "Hands", collection: str) -> int:
    """Return how much of the oplog it takes to insert a document as those of *collection* are."""
    with driver_errors():
        stats = ctx.databases.app.command("collStats", collection, codec_options=CODEC)
    size: float = stats.get("avgObjSize", 0)
    return round(size) + update_bytes(ctx, collection, {})


def estimate_look(ctx: "Hands", collection: str, where: Document) -> Estimate:
    """Return what it costs to count the documents that match *where*."""
    documents, is_counted = count_within(ctx, collection, where)
    all_of_them = _documents(ctx, collection)
    return Estimate(
        collection=collection,
        documents=documents,
        is_counted=is_counted,
        collection_documents=all_of_them,
        scan=scan_of(ctx, collection, where),
        seconds=all_of_them / LOOK_RATE,
        rate=LOOK_RATE,
        is_measured=False,
    )


def estimate_build(ctx: "Hands", collection: str) -> Estimate:
    """Return what it costs to build an index; none of it where the collection is empty."""
    documents = _documents(ctx, collection)
    return Estimate(
        collection=collection,
        documents=documents,
        is_counted=False,
        collection_documents=documents,
        scan="COLLSCAN",
        seconds=documents / BUILD_RATE,
        rate=BUILD_RATE,
        is_measured=False,
    )


def update_bytes(ctx: "Hands", collection: str, update: "Update") -> int:
    """Return how much of the oplog the *update* of one document takes, as its text says: what it assigns, no more.

    Source: the entries that MongoDB 6.0 writes for an update within a transaction (``$v: 2``).
    """
    stages = update if isinstance(update, list) else [update]
    assigned = {
        str(path): value
        for stage in stages
        for fields in stage.values()
        if isinstance(fields, Mapping)
        for path, value in fields.items()
    }
    entry = {
        "op": "u",
        "ns": f"{ctx.databases.app.name}.{collection}",
        "ui": bson.Binary(bytes(16), 4),
        "o": {"$v": 2, "diff": {"u": assigned}},
        "o2": {"_id": ObjectId()},
    }
    return len(bson.encode(entry, codec_options=CODEC))


def scan_of(ctx: "Hands", collection: str, where: Document, *, hint: Document | None = None) -> str:
    """Return how the server would find the documents: the leaf of the plan it chooses, such as ``IXSCAN ix_n``."""
    hinted = {} if hint is None else {"hint": hint}
    wanted = {"find": collection, "filter": where, **hinted}
    with driver_errors():
        try:
            answer = ctx.databases.app.command("explain", wanted, verbosity="queryPlanner", codec_options=CODEC)
        except OperationFailure as error:
            if error.code in (NAMESPACE_NOT_FOUND, BAD_VALUE):  # a hint on a collection that is to come
                return "EOF"
            raise
    plan = answer["queryPlanner"]["winningPlan"]
    return ", ".join(sorted(_leaves(plan.get("queryPlan", plan))))


def _leaves(plan: Mapping[str, Any]) -> set[str]:
    below = [*plan.get("inputStages", ()), *([plan["inputStage"]] if "inputStage" in plan else ())]
    if not below:
        return {f"{plan['stage']} {plan['indexName']}" if "indexName" in plan else str(plan["stage"])}
    return set().union(*map(_leaves, below))


def _documents(ctx: "Hands", collection: str) -> int:
    with driver_errors():
        return ctx.databases.app[collection].estimated_document_count()
