"""Hide an index before it is dropped: queries do without it, and to show it again costs nothing."""

from datetime import timedelta
from typing import TYPE_CHECKING

from compliance.errors import GateClosed, StepFailed
from compliance.health.declared import DECLARED, index_document, index_id
from compliance.health.index_spec import keys_of, options_of
from compliance.health.observed import Observed
from compliance.mongo import Document, Session, driver_errors
from migrations.ops.ddl import alter
from migrations.ops.observed import indexes_of
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands


def hide(ctx: "Hands", collection: str, name: str) -> None:
    """Hide the index; its soaking time begins, unless it runs."""
    step = ctx.begin(Kind.DDL, f"hide index {collection}.{name}", collection=collection, name=name)
    if step is None:
        return
    found = _change(ctx, step, collection, name, hidden=True)
    if found is None or ctx.is_dry_run:
        return
    now = ctx.databases.server_time()
    declared = _declaration(ctx, collection, found)
    restart = not found.spec.get("hidden")  # somebody may have shown it since

    def effect(session: Session) -> None:
        ours = ctx.databases.compliance[DECLARED]
        mine = {"_id": index_id(collection, name)}
        ours.update_one(mine, {"$setOnInsert": declared}, upsert=True, session=session)
        since = mine if restart else mine | {"hidden_since": {"$exists": False}}
        ours.update_one(since, {"$set": {"hidden_since": now}}, session=session)

    ctx.finish(step, {"op": "hide_index", "collection": collection, "index": name}, effect)


def unhide(ctx: "Hands", collection: str, name: str) -> None:
    """Let queries use the index again."""
    step = ctx.begin(Kind.DDL, f"show index {collection}.{name} again", collection=collection, name=name)
    if step is None:
        return
    if _change(ctx, step, collection, name, hidden=False) is None or ctx.is_dry_run:
        return

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].update_one(
            {"_id": index_id(collection, name)}, {"$unset": {"hidden_since": ""}}, session=session
        )

    ctx.finish(step, {"op": "unhide_index", "collection": collection, "index": name}, effect)


def refuse_unsoaked(ctx: "Hands", collection: str, name: str, found: Observed, soaked: timedelta) -> None:
    """Let an index be dropped that has been hidden as long as *soaked*, by the clock of the server.

    A dry run says what it would wait for.

    Raises:
        GateClosed: When it is hidden for less; the next run looks again.
        StepFailed: When it is not hidden.
    """
    with driver_errors():
        declared = ctx.databases.compliance[DECLARED].find_one({"_id": index_id(collection, name)}) or {}
    since = declared.get("hidden_since")
    if since is None or not found.spec.get("hidden"):
        if ctx.is_dry_run:  # an earlier script of the same run may hide it
            ctx.report(f"index {collection}.{name} must be hidden for {soaked} before")
            return
        raise StepFailed(
            f"index {collection}.{name} is not hidden; hide it with ctx.hide_index in an earlier script, and let "
            f"the application run without it for {soaked}"
        )
    left = soaked - (ctx.databases.server_time() - since)
    if left <= timedelta():
        return
    if ctx.is_dry_run:
        ctx.report(f"index {collection}.{name} is hidden since {since:%Y-%m-%d %H:%M} UTC: {_rounded(left)} to go")
        return
    raise GateClosed(
        f"index {collection}.{name} is hidden since {since:%Y-%m-%d %H:%M} UTC and is dropped after {soaked}; migrate "
        f"again in {_rounded(left)}, or show it again with ctx.unhide_index"
    )


def _change(ctx: "Hands", step: Step, collection: str, name: str, *, hidden: bool) -> Observed | None:
    """Hide or show the index unless it is so; return it as it was, None in a dry run in which it is still to come."""
    found = indexes_of(ctx, collection).get(name)
    if found is None:
        if ctx.is_dry_run:
            ctx.report(step.what)
            return None
        raise StepFailed(f"index {collection}.{name} is not there; nothing to hide or show")
    if bool(found.spec.get("hidden")) == hidden:
        ctx.report(f"index {collection}.{name} is {'hidden' if hidden else 'not hidden'}")
        return found
    ctx.report(step.what)
    change: Document = {"name": name, "hidden": hidden}
    alter(ctx, "collMod", collection, index=change)
    return found


def _declaration(ctx: "Hands", collection: str, found: Observed) -> Document:
    """Return what is declared of an index that no migration declared."""
    declared = index_document(
        collection,
        found.spec["name"],
        keys_of(found.spec),
        unique=bool(found.spec.get("unique")),
        revision=ctx.revision,
        options=options_of(found.spec),
    )
    del declared["_id"]
    return declared


def _rounded(duration: timedelta) -> timedelta:
    return timedelta(seconds=max(1, round(duration.total_seconds())))
