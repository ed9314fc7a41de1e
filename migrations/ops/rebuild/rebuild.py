"""The step itself: what is wanted, whether it can be, and that it is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from compliance.audit.entry import Detail
from compliance.errors import MigrationError
from compliance.health.declared import DECLARED, collection_document
from compliance.mongo import Document, Session, driver_errors
from migrations.ops.ddl import alter
from migrations.ops.rebuild.copy import PER_DOCUMENT, Make
from migrations.ops.rebuild.exchange import is_exchanged
from migrations.ops.rebuild.going import Rebuilding
from migrations.ops.rebuild.shadow import VALIDATION, find_copy, record, refuse
from migrations.ops.validator import STRICT
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SHORTEST, LONGEST = 0.1, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a collection is rebuilt to; see ``Context.rebuild``."""

    collection: str
    function: Make | None
    pipeline: Sequence[Document]
    schema: Document | None
    options: Mapping[str, Any]


def rebuild(ctx: "Hands", wanted: Wanted, *, freeze_seconds: float, admit: Callable[[], None]) -> None:
    """Let a copy take the place of a collection.

    Args:
        ctx: Under the lease.
        wanted: What it is rebuilt to.
        freeze_seconds: How long writes may be refused.
        admit: Refuses by what it raises where something else is under way with the collection.

    Raises:
        GateClosed: When the exchange took longer than it may, some times; writes go on, and so does the next run.
        StepFailed: When the collection cannot be rebuilt, or what makes the copy does not make the same twice.
    """
    name = wanted.collection
    _refuse_arguments(wanted, freeze_seconds)
    arguments = {"function": wanted.function, "pipeline": list(wanted.pipeline), "options": dict(wanted.options)}
    step = ctx.begin(Kind.BACKFILL, f"rebuild {name}", collection=name, schema=wanted.schema, **arguments)
    if step is None or ctx.retries:
        return
    if step.place.get("phase") != "over":
        options = {}
        if not is_exchanged(ctx, step.place):
            admit()
            options = refuse(ctx, name)
        with driver_errors():
            documents = ctx.databases.app[name].estimated_document_count()
        ctx.report(
            f"rebuild {name}: copy about {documents} documents, then refuse writes for up to {freeze_seconds:g} s"
        )
        going = Rebuilding(
            ctx=ctx,
            step=step,
            collection=name,
            options=_options(wanted, options),
            function=wanted.function,
            pipeline=wanted.pipeline,
            budget=timedelta(seconds=freeze_seconds),
        )
        if ctx.is_dry_run:
            going.sketch()
            return
        going.go()
        step = replace(step, place=going.place)
    _finish(ctx, step, wanted)


def drop_rebuilt(ctx: "Hands", collection: str) -> None:
    """Drop the copy of *collection* that did not take its place; nothing to do where there is none."""
    step = ctx.begin(Kind.DDL, f"drop the copy of {collection}", collection=collection)
    if step is None:
        return
    name = find_copy(ctx, collection)
    if name is None:
        ctx.report(f"there is no copy of {collection}")
        return
    ctx.report(f"drop {name}")
    if ctx.is_dry_run:
        return
    alter(ctx, "drop", name)
    ctx.finish(
        step,
        {"op": "drop_copy", "collection": collection},
        lambda s: record(ctx, collection, {"is_over": True}, session=s),
    )


def _finish(ctx: "Hands", step: Step, wanted: Wanted) -> None:
    name, place = wanted.collection, step.place
    total: dict[str, Detail] = {
        count: place.get(count, 0) for count in ("documents", "frozen_ms", "deleted_late", "written_late")
    }

    def effect(session: Session) -> None:
        if wanted.schema is not None:
            declared = collection_document(name, {"$jsonSchema": wanted.schema}, level=STRICT, revision=ctx.revision)
            ours = ctx.databases.compliance[DECLARED]
            ours.replace_one({"_id": declared["_id"]}, declared, upsert=True, session=session)

    ctx.finish(step, {"op": "rebuild", "collection": name, "is_done": True, **total}, effect)
    ctx.report(f"rebuilt {name}: writes were refused for {total['frozen_ms']} ms")
    if total["written_late"]:
        ctx.report(
            f"{total['written_late']} documents of {name} were written past the validator while writes were refused, "
            "and are as they were before: who writes with bypassDocumentValidation?"
        )


def _options(wanted: Wanted, options: Mapping[str, Any]) -> dict[str, Any]:
    schema = wanted.schema
    rules = (
        {}
        if schema is None
        else {"validator": {"$jsonSchema": schema}, "validationLevel": "strict", "validationAction": "error"}
    )
    kept = {name: value for name, value in options.items() if schema is None or name not in VALIDATION}
    return {**kept, **rules, **wanted.options}


def _refuse_arguments(wanted: Wanted, freeze_seconds: float) -> None:
    stages = {next(iter(stage), "") for stage in wanted.pipeline}
    if not stages <= PER_DOCUMENT:
        raise MigrationError(
            f"rebuild of {wanted.collection}: a stage of the pipeline looks at more than one document: "
            f"{', '.join(sorted(stages - PER_DOCUMENT))}; use {', '.join(sorted(PER_DOCUMENT))}"
        )
    if wanted.function is not None and wanted.pipeline:
        raise MigrationError(f"rebuild of {wanted.collection}: give function= or pipeline=")
    if not SHORTEST <= freeze_seconds <= LONGEST:
        raise MigrationError(f"rebuild of {wanted.collection}: freeze_seconds is from {SHORTEST:g} to {LONGEST:g}")
