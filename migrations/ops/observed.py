"""What is there, and in a dry run what would be there by now; reads only."""

from typing import TYPE_CHECKING

from compliance.health.observed import Observed, observed_indexes
from compliance.mongo import Document, driver_errors

if TYPE_CHECKING:
    from migrations.hands import Hands


def options_of(ctx: "Hands", name: str) -> Document | None:
    """Return the options of the collection *name*; None where it does not exist."""
    with driver_errors():
        found = list(ctx.databases.app.list_collections(filter={"name": name}))
    observed = dict(found[0].get("options", {})) if found else None
    return ctx.sketch.overlay.collection(name, observed) if ctx.is_dry_run else observed


def indexes_of(ctx: "Hands", collection: str) -> dict[str, Observed]:
    """Return every index of *collection* by name, those that are being built too; none where it does not exist."""
    observed = observed_indexes(ctx.databases.app, collection)
    return ctx.sketch.overlay.indexes_of(collection, observed) if ctx.is_dry_run else observed


def is_to_be_written(ctx: "Hands", collection: str) -> bool:
    """Whether an earlier step of the same dry run changes documents of *collection*: they are not yet as it needs."""
    return ctx.is_dry_run and collection in ctx.sketch.overlay.written


def names_of(ctx: "Hands") -> set[str]:
    """Return the names of all collections and views."""
    with driver_errors():
        observed = ctx.databases.app.list_collection_names()
    return ctx.sketch.overlay.names(observed) if ctx.is_dry_run else set(observed)
