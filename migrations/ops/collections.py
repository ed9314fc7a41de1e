"""Create, change and drop collections."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED, collection_document
from compliance.mongo import Document, Session, driver_errors
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.context import Context

STRICT, REFUSE = "strict", "error"
SHOWN = 5


def create(ctx: "Context", name: str, schema: Document, level: str) -> None:
    """Create *name* with a validator, or give it this validator."""
    step = ctx.begin(Kind.DDL, f"create collection {name} with a validator", name=name, schema=schema, level=level)
    if step is None:
        return
    if _options(ctx, name) is not None:
        _change_schema(ctx, step, name, schema, level)
        return
    ctx.report(step.what)
    ctx.planned.add(f"collection:{name}")
    if ctx.is_dry_run:
        return
    with driver_errors():
        ctx.databases.app.create_collection(
            name, validator={"$jsonSchema": schema}, validationLevel=level, validationAction=REFUSE
        )
    _declare(ctx, step, name, schema, level, op="create_collection")


def set_schema(ctx: "Context", name: str, schema: Document, level: str) -> None:
    """Give *name* this validator, unless it has it."""
    step = ctx.begin(Kind.DDL, f"change the validator of {name} ({level})", name=name, schema=schema, level=level)
    if step is not None:
        _change_schema(ctx, step, name, schema, level)


def _change_schema(ctx: "Context", step: Step, name: str, schema: Document, level: str) -> None:
    options = _options(ctx, name)
    if options is None:
        if ctx.is_dry_run and f"collection:{name}" in ctx.planned:
            ctx.report(f"change the validator of {name}")
            return
        raise StepFailed(f"collection {name} does not exist; create it first")
    validator = {"$jsonSchema": schema}
    if _rules(options) == (validator, level, REFUSE):
        ctx.report(f"collection {name} is as declared")
    else:
        ctx.report(f"change the validator of {name} ({level})")
        if level == STRICT:
            _verify(ctx, name, validator)
        if not ctx.is_dry_run:
            with driver_errors():
                ctx.databases.app.command(
                    "collMod", name, validator=validator, validationLevel=level, validationAction=REFUSE
                )
    if not ctx.is_dry_run:
        _declare(ctx, step, name, schema, level, op="set_schema")


def drop(ctx: "Context", name: str) -> None:
    """Drop *name*, if it is there and holds nothing, or data may be dropped."""
    step = ctx.begin(Kind.DDL, f"drop collection {name}", name=name)
    if step is None:
        return
    if _options(ctx, name) is None:
        ctx.report(f"collection {name} is not there")
    else:
        with driver_errors():
            documents = ctx.databases.app[name].count_documents({}, limit=1)
        if documents and not ctx.drop_data:
            raise StepFailed(f"collection {name} holds documents; export them, then use --drop-data to drop it")
        ctx.report(step.what)
        if not ctx.is_dry_run:
            with driver_errors():
                ctx.databases.app.drop_collection(name)
    if not ctx.is_dry_run:
        _forget(ctx, step, name)


def _verify(ctx: "Context", name: str, validator: Document) -> None:
    """Refuse a validator that documents break already: under ``strict`` nobody could update them any more."""
    with driver_errors():
        found = ctx.databases.app[name].find({"$nor": [validator]}, {"_id": 1}).limit(SHOWN + 1)
        ids = [str(document["_id"]) for document in found]
    if not ids:
        return
    shown = f"{', '.join(ids[:SHOWN])}{' (and more)' if len(ids) > SHOWN else ''}"
    if ctx.is_dry_run:  # an earlier script of the same run may correct them
        ctx.report(f"documents of {name} that do not fit as they are: {shown}")
        return
    raise StepFailed(f"the new validator of {name} refuses documents that are there: {shown}; correct them first")


def _options(ctx: "Context", name: str) -> Document | None:
    with driver_errors():
        found = list(ctx.databases.app.list_collections(filter={"name": name}))
    return dict(found[0].get("options", {})) if found else None


def _rules(options: Document) -> tuple[Document | None, str, str]:
    return (
        options.get("validator"),
        options.get("validationLevel", STRICT),
        options.get("validationAction", REFUSE),
    )


def _declare(ctx: "Context", step: Step, name: str, schema: Document, level: str, *, op: str) -> None:
    document = collection_document(name, {"$jsonSchema": schema}, level=level, revision=ctx.revision)

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].replace_one({"_id": document["_id"]}, document, upsert=True, session=session)

    ctx.finish(step, {"op": op, "collection": name}, effect)


def _forget(ctx: "Context", step: Step, name: str) -> None:
    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].delete_many({"collection": name}, session=session)

    ctx.finish(step, {"op": "drop_collection", "collection": name}, effect)
