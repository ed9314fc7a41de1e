"""Create and drop indexes: look first at what is there, and at what would make a build fail."""

from datetime import timedelta
from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED, index_document, index_id
from compliance.health.index_spec import OPTIONS, Keys, Options, conflicts, differences
from compliance.health.observed import Observed
from compliance.mongo import Session
from migrations.ops.build import build
from migrations.ops.ddl import alter, wait_for_lock
from migrations.ops.hidden import refuse_unsoaked
from migrations.ops.observed import indexes_of
from migrations.ops.preflight import (
    MOST_INDEXES,
    refuse_duplicates,
    refuse_parallel_arrays,
    report_expiring,
)
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND = 27, 26


def create(
    ctx: "Hands", collection: str, name: str, keys: Keys, *, unique: bool, options: Options, expires_because: str
) -> None:
    """Create the index unless it is there as declared."""
    what = f"{'unique ' if unique else ''}index {collection}.{name}"
    given = {"options": dict(options)} if options else {}
    step = ctx.begin(Kind.DDL, f"create {what}", collection=collection, name=name, keys=keys, unique=unique, **given)
    if step is None:
        return
    refuse_options(ctx, collection, name, options, expires_because)
    wanted = {**({"unique": True} if unique else {}), **options}
    ensure(ctx, collection, name, keys, wanted, what=step.what)
    if not ctx.is_dry_run:
        because = {"expires_because": expires_because} if expires_because else {}
        declare(ctx, step, collection, name, keys, options, unique=unique, details=because)


def drop(ctx: "Hands", collection: str, name: str, *, soaked: timedelta | None) -> None:
    """Drop the index if it is there, and was hidden as long as *soaked*."""
    step = ctx.begin(Kind.DDL, f"drop index {collection}.{name}", collection=collection, name=name)
    if step is None:
        return
    found = indexes_of(ctx, collection).get(name)
    if found is None:
        ctx.report(f"index {collection}.{name} is not there")
    else:
        if soaked is not None:
            refuse_unsoaked(ctx, collection, name, found, soaked)
        ctx.report(step.what)
        alter(ctx, "dropIndexes", collection, index=name, allowed=(INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND))
    if ctx.is_dry_run:
        return

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].delete_one({"_id": index_id(collection, name)}, session=session)

    ctx.finish(step, {"op": "drop_index", "collection": collection, "index": name}, effect)


def refuse_options(ctx: "Hands", collection: str, name: str, options: Options, expires_because: str) -> None:
    """Look at the options of an index before anything else.

    Raises:
        StepFailed: For one that we do not know, or that lets documents about people expire without a reason.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise StepFailed(
            f"index {collection}.{name}: there is no option {', '.join(unknown)}; known: {', '.join(OPTIONS)}"
        )
    if "expireAfterSeconds" in options and collection in ctx.grants.erasable and not expires_because:
        raise StepFailed(
            f"index {collection}.{name} would delete documents about people, without an audit entry for any; say "
            'which retention period it carries out: expires_because="..."'
        )


def ensure(ctx: "Hands", collection: str, name: str, keys: Keys, wanted: Options, *, what: str) -> None:
    """Build the index unless it is there as *wanted*; wait for its build where one runs."""
    present = indexes_of(ctx, collection)
    if is_present(present, collection, name, keys, wanted):
        if not present[name].is_building:
            ctx.report(f"index {collection}.{name} is there")
            return
        ctx.report(f"index {collection}.{name} is being built already: wait for its end")
    else:
        ctx.report(what)
        preflight(ctx, present, collection, name, keys, wanted)
    if present and not any(index.is_building for index in present.values()):
        wait_for_lock(ctx, collection)
    build(ctx, collection, name, keys, wanted)


def is_present(present: dict[str, Observed], collection: str, name: str, keys: Keys, wanted: Options) -> bool:
    """Whether the index is there, or being built.

    Raises:
        StepFailed: When its name is taken, or its keys are indexed under another.
    """
    if name in present:
        differs_in = differences(keys, wanted, present[name].spec)
        if not differs_in:
            return True
        raise StepFailed(
            f"index {collection}.{name} is there with another {' and '.join(differs_in)}; drop it first, or choose "
            "another name"
        )
    for other, found in present.items():
        if conflicts(keys, wanted, found.spec):
            kind = "a text index, of which there can be one," if "_fts" in found.spec["key"] else "these keys indexed"
            raise StepFailed(
                f"{collection} has {kind} under the name {other}; declare that name instead of {name}, or drop it first"
            )
    return False


def preflight(
    ctx: "Hands", present: dict[str, Observed], collection: str, name: str, keys: Keys, wanted: Options
) -> None:
    """Look for everything that would make the build fail.

    Raises:
        StepFailed: With the way out.
    """
    if len(present) >= MOST_INDEXES:
        raise StepFailed(
            f"{collection} has {len(present)} indexes, and MongoDB allows {MOST_INDEXES}; drop one that nothing uses "
            f"(db.{collection}.aggregate([{{$indexStats: {{}}}}])) before {name}"
        )
    refuse_parallel_arrays(ctx, collection, name, keys)
    if wanted.get("unique"):
        refuse_duplicates(ctx, collection, name, keys, wanted)
    if "expireAfterSeconds" in wanted:
        report_expiring(ctx, collection, keys, wanted)


def declare(
    ctx: "Hands",
    step: Step,
    collection: str,
    name: str,
    keys: Keys,
    options: Options,
    *,
    unique: bool,
    details: dict[str, str],
) -> None:
    """End *step*: the index is declared, so that health checks look for it."""
    document = index_document(collection, name, keys, unique=unique, revision=ctx.revision, options=options)

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].replace_one({"_id": document["_id"]}, document, upsert=True, session=session)

    ctx.finish(step, {"op": "create_index", "collection": collection, "index": name, **details}, effect)
