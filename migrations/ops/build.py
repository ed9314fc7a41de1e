"""Build an index: adopt a build that runs already, and tell how far the server is.

A client that dies does not stop a build. Its successor asks for the same index, and the server lets it wait for it.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from compliance.errors import StepFailed
from compliance.health.index_spec import Keys, Options
from compliance.mongo import DUPLICATE_KEY, UNAUTHORIZED, Document, driver_errors
from migrations.command import Command, alteration, send
from migrations.ops.estimate import estimate_build
from migrations.ops.preflight import refuse_duplicates

if TYPE_CHECKING:
    from migrations.hands import Hands

TELL_EVERY = timedelta(seconds=2)
REASONS = {
    67: "the server refuses an index of this kind here (code 67)",
    85: "the same keys are indexed under another name (code 85); drop that index, or declare it by its name",
    86: "the name is taken by another index (code 86); drop that one, or choose another name",
    171: "two of its fields are arrays in one document (code 171); make one of them no array",
    16755: "a document holds no valid GeoJSON in an indexed field (code 16755); correct it",
    17261: "a document holds a language that text indexes do not know (code 17261); see language_override",
    17262: "a document holds a language that text indexes do not know (code 17262); see language_override",
}


def build(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    """Build the index, or wait for the build that runs; say every few seconds how far it is.

    Raises:
        StepFailed: When documents or other indexes are in the way; nothing is left of the build.
    """
    index = {**options, "key": dict(keys), "name": name}
    wanted = alteration("createIndexes", collection, indexes=[index])
    if ctx.is_dry_run:
        sketch_build(ctx, wanted)
        return
    with _told(ctx, collection, name), driver_errors():
        try:
            send(ctx, wanted)
        except OperationFailure as error:
            if error.code in REASONS:
                raise StepFailed(f"index {collection}.{name} was not built: {REASONS[error.code]}") from None
            if error.code != DUPLICATE_KEY:  # duplicates can come while it is built
                raise
        else:
            return
    refuse_duplicates(ctx, collection, name, keys, options)
    raise StepFailed(f"{collection}.{name} cannot be unique: documents shared a key meanwhile; migrate again")


def sketch_build(ctx: "Hands", command: Command) -> None:
    """Record what builds indexes, with what it costs."""
    estimate = estimate_build(ctx, command.collection)
    ctx.sketch.add(command)
    if estimate.collection_documents:
        ctx.sketch.step.estimate = estimate
        ctx.sketch.lock(
            f"{command.collection}: an index is built; writes go on, slower, and it is locked when that begins and ends"
        )


@contextmanager
def _told(ctx: "Hands", collection: str, name: str) -> Iterator[None]:
    """Report the progress of the build of an index while the block waits for it."""
    ended = threading.Event()

    def tell() -> None:
        told = ""
        while not ended.wait(TELL_EVERY.total_seconds()):
            try:
                line = find_progress(ctx, collection, name)
            except OperationFailure as error:
                if error.code == UNAUTHORIZED:
                    ctx.report("how far it is cannot be shown: run `compliance doctor --provision`")
                    return
                continue
            except PyMongoError:
                continue  # the block hears of it itself
            if line and line != told:
                ctx.report(line)
                told = line

    thread = threading.Thread(target=tell, name=f"build-{collection}.{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def find_progress(ctx: "Hands", collection: str, name: str) -> str:
    """Return one line about the build of the index *name*; empty where the server says nothing of it."""
    ours = {"ns": f"{ctx.databases.app.name}.{collection}", "command.indexes.name": name, "desc": {"$regex": "^Index"}}
    pipeline: list[Document] = [{"$currentOp": {"allUsers": True, "idleConnections": True}}, {"$match": ours}]
    admin = ctx.databases.client.get_database("admin", read_concern=ReadConcern("local"))  # it takes no other
    for operation in admin.aggregate(pipeline):
        line = _line(operation)
        if line:
            return f"index {collection}.{name}: {line}"
    return ""


def _line(operation: Mapping[str, Any]) -> str:
    phase, _, _ = str(operation.get("msg") or "").removeprefix("Index Build: ").partition(" Index Build:")
    progress = operation.get("progress") or {}
    return f"{phase}, {progress['done']} of {progress['total']}" if {"done", "total"} <= progress.keys() else phase
