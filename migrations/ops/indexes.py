"""Create and drop indexes; look at what is there first, and name duplicates before a unique build."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED, Keys, index_document
from compliance.mongo import Document, Session, driver_errors
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.context import Context

SHOWN = 5


def create(ctx: "Context", collection: str, name: str, keys: Keys, *, unique: bool) -> None:
    """Create the index unless it is there as declared."""
    what = f"{'unique ' if unique else ''}index {collection}.{name}"
    step = ctx.begin(Kind.DDL, f"create {what}", collection=collection, name=name, keys=keys, unique=unique)
    if step is None:
        return
    if _is_present(ctx, collection, name, keys, unique=unique):
        ctx.report(f"index {collection}.{name} is there")
    else:
        ctx.report(step.what)
        if unique:
            _refuse_duplicates(ctx, collection, name, [field for field, _ in keys])
        if not ctx.is_dry_run:
            with driver_errors():
                ctx.databases.app[collection].create_index(list(keys), name=name, unique=unique)
    if ctx.is_dry_run:
        return
    document = index_document(collection, name, keys, unique=unique, revision=ctx.revision)

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].replace_one({"_id": document["_id"]}, document, upsert=True, session=session)

    ctx.finish(step, {"op": "create_index", "collection": collection, "index": name}, effect)


def drop(ctx: "Context", collection: str, name: str) -> None:
    """Drop the index if it is there."""
    step = ctx.begin(Kind.DDL, f"drop index {collection}.{name}", collection=collection, name=name)
    if step is None:
        return
    if name in _present(ctx, collection):
        ctx.report(step.what)
        if not ctx.is_dry_run:
            with driver_errors():
                ctx.databases.app[collection].drop_index(name)
    else:
        ctx.report(f"index {collection}.{name} is not there")
    if ctx.is_dry_run:
        return

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].delete_one({"_id": f"index:{collection}.{name}"}, session=session)

    ctx.finish(step, {"op": "drop_index", "collection": collection, "index": name}, effect)


def _present(ctx: "Context", collection: str) -> Document:
    with driver_errors():
        return dict(ctx.databases.app[collection].index_information())


def _is_present(ctx: "Context", collection: str, name: str, keys: Keys, *, unique: bool) -> bool:
    wanted = [tuple(key) for key in keys]
    for other, found in _present(ctx, collection).items():
        same_keys, same_name = [tuple(key) for key in found["key"]] == wanted, other == name
        if same_keys and same_name and bool(found.get("unique")) == unique:
            return True
        if same_name:
            raise StepFailed(f"index {collection}.{name} is there with other keys or options; drop or rename it first")
        if same_keys:
            raise StepFailed(f"{collection} has an index on these keys under the name {other}; drop it first")
    return False


def _refuse_duplicates(ctx: "Context", collection: str, name: str, fields: list[str]) -> None:
    some_ids = {"$firstN": {"input": "$_id", "n": SHOWN}}  # all of them could pass 16 MB
    pipeline: list[Document] = [
        {"$group": {"_id": {f"f{n}": f"${field}" for n, field in enumerate(fields)}, "ids": some_ids}},
        {"$match": {"ids.1": {"$exists": True}}},
        {"$limit": SHOWN + 1},
    ]
    with driver_errors():
        groups = list(ctx.databases.app[collection].aggregate(pipeline, allowDiskUse=True))
    if groups:
        shown = "; ".join(", ".join(str(id_) for id_ in group["ids"]) for group in groups[:SHOWN])
        more = " (and more)" if len(groups) > SHOWN else ""
        raise StepFailed(
            f"{collection}.{name} cannot be unique: documents with the same {' and '.join(fields)} have the _id "
            f"{shown}{more}; merge or correct them, then migrate again"
        )
