"""Partition a collection: create buckets like it, let the view show them, and move what has a date."""

from typing import TYPE_CHECKING, Any

from compliance.datamap.buckets import Bucket
from compliance.errors import StepFailed
from compliance.health.declared import DECLARED, collection_document, index_document
from compliance.health.index_spec import keys_of, options_of
from compliance.mongo import Document, Session, driver_errors
from migrations.command import alteration, carry_out, send
from migrations.ops import validator
from migrations.ops.build import sketch_build
from migrations.ops.observed import indexes_of
from migrations.ops.observed import options_of as collection_options
from migrations.ops.partition.move import move, sketch_move
from migrations.ops.partition.scheme import Scheme, find_scheme, needed_buckets, present_buckets
from migrations.ops.partition.view import route
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

VALIDATION = ("validator", "validationLevel", "validationAction")
UNSAID = ("v", "ns", "hidden")


def apply(ctx: "Hands", scheme: Scheme) -> None:
    """Create the buckets that are needed, and move every document that has one."""
    _prepare(ctx, scheme)
    _move(ctx, scheme)


def _prepare(ctx: "Hands", scheme: Scheme) -> None:
    what = f"buckets of {scheme.collection} by {scheme.every} of {scheme.field}"
    step = ctx.begin(Kind.DDL, what, collection=scheme.collection, field=scheme.field, every=scheme.every.value)
    if step is None:
        return
    _refuse(ctx, scheme)
    present = [bucket.name for bucket in present_buckets(ctx, scheme)]
    needed = needed_buckets(ctx.databases.app, scheme)
    _refuse_unmapped(ctx, scheme, needed)
    for bucket, documents in needed.items():
        ctx.report(f"{bucket.name}: {documents} documents{'' if bucket.name in present else ', to be created'}")
    created = [bucket.name for bucket in needed if bucket.name not in present]
    indexes = _indexes(ctx, scheme)
    for bucket in needed:
        _create(ctx, scheme, bucket.name, indexes)
    route(ctx, scheme, sorted({*present, *(bucket.name for bucket in needed)}))
    if ctx.is_dry_run:
        declared = {"field": scheme.field, "every": scheme.every.value}
        ctx.sketch.overlay.partitioned[scheme.collection] = declared
    else:
        _declare(ctx, step, scheme, [bucket.name for bucket in needed], indexes, created=created)


def _move(ctx: "Hands", scheme: Scheme) -> None:
    what = f"move documents of {scheme.collection} into their buckets"
    arguments = {"collection": scheme.collection, "field": scheme.field, "every": scheme.every.value, "moves": True}
    step = ctx.begin(Kind.BACKFILL, what, **arguments)
    if step is None:
        return
    ctx.report(what)
    if ctx.is_dry_run:
        sketch_move(ctx, scheme.collection, scheme.movable, lambda document: scheme.bucket_of(document).name)
        return
    present = {bucket.name for bucket in present_buckets(ctx, scheme)}

    def target(document: Document) -> str | None:
        name = scheme.bucket_of(document).name
        return name if name in present else None  # the next time it is applied

    before = step.place.get("documents", 0)
    moved = move(ctx, step, scheme.collection, scheme.movable, target, op="partition", moved=before)
    ctx.report(f"moved {moved} documents of {scheme.collection}")
    ctx.finish(step, {"op": "partition", "collection": scheme.collection, "documents": moved, "is_done": True})


def _refuse(ctx: "Hands", scheme: Scheme) -> None:
    """Look whether the collection can be shared out.

    Raises:
        StepFailed: When it does not exist, is partitioned otherwise, or has a unique index.
    """
    if collection_options(ctx, scheme.collection) is None:
        raise StepFailed(f"collection {scheme.collection} does not exist; create it first")
    declared = find_scheme(ctx, scheme.collection)
    if declared is not None and declared != scheme:
        raise StepFailed(
            f"{scheme.collection} is partitioned by {declared.every} of {declared.field}; bring its documents back "
            "with ctx.merge_partitions first"
        )
    unique = [name for name, found in _indexes(ctx, scheme).items() if found.get("unique")]
    if unique:
        raise StepFailed(
            f"{scheme.collection}.{unique[0]} is unique; once a document has moved into its bucket, another one with "
            "the same key could be inserted. Such a collection cannot be partitioned"
        )


def _refuse_unmapped(ctx: "Hands", scheme: Scheme, needed: dict[Bucket, int]) -> None:
    """Look whether erasures would reach the buckets.

    Raises:
        StepFailed: Naming a bucket that the data map does not know, of a collection that it knows.
    """
    if scheme.collection not in ctx.grants.erasable:
        return
    unmapped = [bucket for bucket in needed if bucket.name not in ctx.grants.erasable]
    if unmapped:
        since, until = min(unmapped).start, max(unmapped).start
        raise StepFailed(
            f"the data map knows {scheme.collection}, not its bucket {unmapped[0].name}; write below buckets in it: "
            f"{scheme.collection}: {{every: {scheme.every}, since: {since:%Y-%m-%d}, until: {until:%Y-%m-%d}}}, or "
            "longer, and run `compliance doctor --provision`, so that erasures reach the buckets"
        )


def _indexes(ctx: "Hands", scheme: Scheme) -> dict[str, Document]:
    found = indexes_of(ctx, scheme.collection)
    return {name: index.spec for name, index in found.items() if name != "_id_" and not index.is_building}


def _create(ctx: "Hands", scheme: Scheme, name: str, indexes: dict[str, Document]) -> None:
    """Create a bucket with the validator and the indexes of its collection, where they are missing."""
    if collection_options(ctx, name) is None:
        given = collection_options(ctx, scheme.collection) or {}
        options: dict[str, Any] = {option: given[option] for option in VALIDATION if option in given}
        with driver_errors():
            carry_out(ctx, alteration("create", name, **options))
    specs = [{key: spec[key] for key in spec if key not in UNSAID} for spec in indexes.values()]
    wanted = alteration("createIndexes", name, indexes=specs)
    if specs and ctx.is_dry_run:
        sketch_build(ctx, wanted)
    elif specs:
        with driver_errors():
            send(ctx, wanted)


def _declare(
    ctx: "Hands", step: Step, scheme: Scheme, names: list[str], indexes: dict[str, Document], *, created: list[str]
) -> None:
    declared: Document = {
        "_id": scheme.id,
        "collection": scheme.collection,
        "field": scheme.field,
        "every": scheme.every.value,
        "revision": ctx.revision,
    }
    documents = [declared, *(document for name in names for document in _declarations(ctx, scheme, name, indexes))]

    def effect(session: Session) -> None:
        ours = ctx.databases.compliance[DECLARED]
        for document in documents:
            ours.replace_one({"_id": document["_id"]}, document, upsert=True, session=session)

    ctx.finish(step, {"op": "create_buckets", "collection": scheme.collection, "created": created}, effect)


def _declarations(ctx: "Hands", scheme: Scheme, name: str, indexes: dict[str, Document]) -> list[Document]:
    rules = validator.rules_of(collection_options(ctx, scheme.collection) or {})
    declared = [
        index_document(name, index, keys_of(spec), unique=False, revision=ctx.revision, options=options_of(spec))
        for index, spec in indexes.items()
    ]
    if rules.is_enforced:
        declared.append(collection_document(name, rules.validator or {}, level=rules.level, revision=ctx.revision))
    return declared
