"""The copy that is to take the place of a collection: its name, what is recorded of it, and what cannot be rebuilt.

Document shape (``migration_control``), one for each collection that is or was rebuilt::

    {_id: "rebuild:<collection>", collection: str, revision: str, source: bin (UUID), shadow: bin (UUID) | null,
     is_over: bool, frozen?: str (the validator before, in canonical Extended JSON), freezes?: int, token?: object}

``frozen`` is there from right before writes are refused until they are let in again, or the exchange is settled;
``freezes`` counts how often that was begun.

While it is filled the copy is ``<collection>_shadow``, so that roles can name it. To be exchanged it gets a name with
the fence of its owner, in a step of its own: a runner that was taken over then renames what is not there any more.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson import Binary

from compliance.erasure.frozen import find_frozen
from compliance.errors import StepFailed, StoreUnavailable
from compliance.mongo import Db, Document, Session, driver_errors
from compliance.roles import CONTROL, REBUILD, shadow_of
from migrations.command import MAJORITY, Command, alteration, carry_out
from migrations.ops.ddl import alter
from migrations.ops.observed import indexes_of, options_of

if TYPE_CHECKING:
    from migrations.hands import Hands

NAMESPACE_NOT_FOUND = 26
UNREADABLE = {"capped": "it is capped", "timeseries": "it holds a time series", "encryptedFields": "it is encrypted"}
VALIDATION = ("validator", "validationLevel", "validationAction")
UNSAID = ("v", "ns", "unique", "prepareUnique")


def find_by_uuid(database: Db, uuid: Binary | None) -> str | None:
    """Return the present name of the collection *uuid*."""
    with driver_errors():
        listed = database.list_collections() if uuid is not None else ()
        return next((found["name"] for found in listed if found["info"].get("uuid") == uuid), None)


def uuid_of(database: Db, name: str) -> Binary | None:
    """Return the UUID of the collection *name*, or None."""
    with driver_errors():
        return next(
            (Binary(found["info"]["uuid"], 4) for found in database.list_collections(filter={"name": name})), None
        )


def refuse(ctx: "Hands", collection: str) -> Document:
    """Return the options of *collection*, if it can be rebuilt.

    Raises:
        StepFailed: When it cannot; the message says why.
        StoreUnavailable: When somebody refuses writes to it since we looked.
    """
    database = ctx.databases.app
    with driver_errors():
        listed = {found["name"]: found for found in database.list_collections()}
        is_sharded = ctx.databases.client.admin.command("hello").get("msg") == "isdbgrid"
    found = listed.get(collection)
    if found is None and ctx.is_dry_run and (planned := options_of(ctx, collection)) is not None:
        return planned
    if found is None:
        raise StepFailed(f"collection {collection} does not exist; create it first")
    views = [name for name, other in listed.items() if other.get("options", {}).get("viewOn") == collection]
    why = [text for option, text in UNREADABLE.items() if found["options"].get(option)]
    why += ["it is a view"] if found["type"] == "view" else []
    why += [f"the view {view} shows it, and would show the new shape" for view in sorted(views)]
    why += (
        ["the deployment is sharded, where a rename may not take the place of another collection"] if is_sharded else []
    )
    if why:
        raise StepFailed(f"{collection} cannot be rebuilt: {'; '.join(why)}")
    if any(frozen.collection == collection for frozen in find_frozen(ctx.databases)):
        raise StoreUnavailable(f"writes to {collection} are refused by a runner that slept; migrate again")
    record = find_record(ctx, collection)
    if shadow_of(collection) in listed and (record is None or record["is_over"]):
        raise StepFailed(f"collection {shadow_of(collection)} is there, and not ours; give it another name first")
    return dict(found["options"])


def find_record(ctx: "Hands", collection: str) -> Document | None:
    """Return what is recorded of the rebuilding of *collection*."""
    with driver_errors():
        return ctx.databases.compliance[CONTROL].find_one({"_id": f"{REBUILD}{collection}"})


def find_copy(ctx: "Hands", collection: str) -> str | None:
    """Return the present name of the copy of *collection*, if there is one that has not taken its place."""
    found = find_record(ctx, collection)
    if found is None or found["is_over"]:
        return None
    name = find_by_uuid(ctx.databases.app, found["shadow"])
    if name is not None:
        return None if name == collection else name
    made = shadow_of(collection)  # by a runner that died before it could say which one
    return made if uuid_of(ctx.databases.app, made) is not None else None


def record(ctx: "Hands", collection: str, changes: Mapping[str, Any], *, session: Session) -> None:
    """Record *changes* in the transaction of *session*."""
    ctx.databases.compliance[CONTROL].update_one(
        {"_id": f"{REBUILD}{collection}"}, {"$set": {"collection": collection, **changes}}, upsert=True, session=session
    )


def create(ctx: "Hands", collection: str, options: Mapping[str, Any]) -> None:
    """Create the empty copy of *collection* with *options* and its indexes; a dry run records it.

    Unique indexes are plain ones until nobody writes: the copy of one document may be older than that of another.
    """
    name = shadow_of(collection)
    alter(ctx, "drop", name, allowed=(NAMESPACE_NOT_FOUND,))
    with driver_errors():
        carry_out(ctx, alteration("create", name, **options))
        present = {index: found.spec for index, found in indexes_of(ctx, collection).items() if index != "_id_"}
        specs = [{key: spec[key] for key in spec if key not in UNSAID} for spec in present.values()]
        if specs:
            carry_out(ctx, alteration("createIndexes", name, indexes=specs))


def make_plain(ctx: "Hands", collection: str) -> None:
    """Let the indexes of the copy be no unique ones again, where an exchange that came too late made them so."""
    database, name = ctx.databases.app, shadow_of(collection)
    with driver_errors():
        specs = [spec for spec in _indexes(database, name) if spec.get("unique") or spec.get("prepareUnique")]
        for spec in specs:
            alter(ctx, "dropIndexes", name, index=spec["name"])
            plain = {key: spec[key] for key in spec if key not in UNSAID}
            database.command("createIndexes", name, indexes=[plain], writeConcern=MAJORITY)


def unique_indexes(ctx: "Hands", collection: str) -> list[str]:
    """Return the names of the unique indexes of *collection*."""
    if ctx.is_dry_run:
        return [name for name, found in indexes_of(ctx, collection).items() if found.spec.get("unique")]
    with driver_errors():  # writes are refused now, so nothing is looked at but this
        return [str(spec["name"]) for spec in _indexes(ctx.databases.app, collection) if spec.get("unique")]


def renaming(ctx: "Hands", name: str, to: str) -> Command:
    """Return the command that renames a collection."""
    full, limit = f"{ctx.databases.app.name}.", round(ctx.patience.budget.total_seconds() * 1000)
    return alteration("renameCollection", f"{full}{name}", database="admin", to=f"{full}{to}", maxTimeMS=limit)


def rename(ctx: "Hands", name: str, to: str) -> None:
    """Rename the copy of a collection; nothing to do where *name* is not there."""
    full = f"{ctx.databases.app.name}."
    alter(ctx, "renameCollection", f"{full}{name}", database="admin", to=f"{full}{to}", allowed=(NAMESPACE_NOT_FOUND,))


def _indexes(database: Db, collection: str) -> list[Document]:
    return [dict(spec) for spec in database[collection].list_indexes() if spec["name"] != "_id_"]
