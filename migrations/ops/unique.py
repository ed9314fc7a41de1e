"""Make an index unique while the application writes.

Built as a plain index first. ``prepareUnique`` then refuses every new duplicate, so what a look finds behind it is all
there is; without any, ``unique`` only changes the catalogue. Each of the three is a step, known again by what is there.
"""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.index_spec import Keys, Options
from compliance.mongo import Document
from migrations.ops import indexes
from migrations.ops.ddl import alter
from migrations.ops.observed import indexes_of
from migrations.ops.preflight import Duplicates, find_duplicates, refuse_duplicates
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands

CANNOT_CONVERT = 359


def create(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    """Create a unique index in three steps, or go on where an earlier run stood."""
    _build(ctx, collection, name, keys, options)
    _prepare(ctx, collection, name)
    _convert(ctx, collection, name, keys, options)


def _build(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    arguments = {"collection": collection, "name": name, "keys": keys, "options": dict(options), "becomes": "unique"}
    step = ctx.begin(Kind.DDL, f"build index {collection}.{name}, to become unique", **arguments)
    if step is None:
        return
    indexes.refuse_options(ctx, collection, name, options, expires_because="")
    if _is_unique(ctx, collection, name):
        indexes.ensure(ctx, collection, name, keys, {**options, "unique": True}, what=step.what)
    else:
        refuse_duplicates(ctx, collection, name, keys, options)
        indexes.ensure(ctx, collection, name, keys, options, what=step.what)
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "build_index", "collection": collection, "index": name})


def _prepare(ctx: "Hands", collection: str, name: str) -> None:
    what = f"refuse new duplicates of {collection}.{name}"
    step = ctx.begin(Kind.DDL, what, collection=collection, name=name, change="prepareUnique")
    if step is None:
        return
    if not _is_unique(ctx, collection, name):
        ctx.report(what)
        _modify(ctx, collection, {"name": name, "prepareUnique": True})
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "prepare_unique", "collection": collection, "index": name})


def _convert(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    arguments = {"collection": collection, "name": name, "keys": keys, "options": dict(options), "unique": True}
    step = ctx.begin(Kind.DDL, f"make index {collection}.{name} unique", **arguments)
    if step is None:
        return
    if not _is_unique(ctx, collection, name):
        ctx.report(step.what)
        _make_unique(ctx, collection, name, keys, options)
    if not ctx.is_dry_run:
        indexes.declare(ctx, step, collection, name, keys, options, unique=True, details={"online": "prepareUnique"})


def _make_unique(ctx: "Hands", collection: str, name: str, keys: Keys, options: Options) -> None:
    """Look for duplicates that came before ``prepareUnique``, and make the index unique if there are none.

    Raises:
        StepFailed: Naming them; new duplicates are allowed again, for the application may not expect to be refused.
    """
    _modify(ctx, collection, {"name": name, "prepareUnique": True})  # somebody may have taken it away since
    found = None if ctx.is_dry_run else find_duplicates(ctx, collection, keys, options)  # looked for before
    if found is None and _modify(ctx, collection, {"name": name, "unique": True}, allowed=(CANNOT_CONVERT,)):
        return
    _modify(ctx, collection, {"name": name, "prepareUnique": False})
    raise StepFailed(_sentence(collection, name, keys, found))


def _sentence(collection: str, name: str, keys: Keys, found: Duplicates | None) -> str:
    fields = " and ".join(field for field, _ in keys)
    which = f" and have the _id {found}" if found else ""
    return (
        f"{collection}.{name} cannot become unique: documents with the same {fields} came while it was built{which}; "
        "merge or correct them, then migrate again"
    )


def _modify(ctx: "Hands", collection: str, change: Document, *, allowed: tuple[int, ...] = ()) -> bool:
    return alter(ctx, "collMod", collection, index=change, allowed=allowed)


def _is_unique(ctx: "Hands", collection: str, name: str) -> bool:
    found = indexes_of(ctx, collection).get(name)
    return found is not None and bool(found.spec.get("unique"))
