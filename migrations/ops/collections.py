"""Create, change and drop collections."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED
from compliance.mongo import Document, Session, driver_errors
from migrations.command import alteration, carry_out
from migrations.ops.ddl import alter
from migrations.ops.observed import options_of
from migrations.ops.validator import REFUSE, STRICT, Rules, declare, enforce, refuse_violators, rules_of
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

NAMESPACE_NOT_FOUND = 26


def create(ctx: "Hands", name: str, schema: Document, level: str) -> None:
    """Create *name* with a validator, or give it this validator."""
    step = ctx.begin(Kind.DDL, f"create collection {name} with a validator", name=name, schema=schema, level=level)
    if step is None:
        return
    if options_of(ctx, name) is not None:
        _change_schema(ctx, step, name, schema, level)
        return
    ctx.report(step.what)
    validator = {"$jsonSchema": schema}
    wanted = alteration("create", name, validator=validator, validationLevel=level, validationAction=REFUSE)
    with driver_errors():
        carry_out(ctx, wanted)
    if not ctx.is_dry_run:
        declare(ctx, step, name, schema, level, op="create_collection")


def set_schema(ctx: "Hands", name: str, schema: Document, level: str) -> None:
    """Give *name* this validator, unless it has it."""
    step = ctx.begin(Kind.DDL, f"change the validator of {name} ({level})", name=name, schema=schema, level=level)
    if step is not None:
        _change_schema(ctx, step, name, schema, level)


def _change_schema(ctx: "Hands", step: Step, name: str, schema: Document, level: str) -> None:
    options = options_of(ctx, name)
    if options is None:
        raise StepFailed(f"collection {name} does not exist; create it first")
    wanted = Rules(validator={"$jsonSchema": schema}, level=level, action=REFUSE)
    if rules_of(options) == wanted:
        ctx.report(f"collection {name} is as declared")
    else:
        ctx.report(f"change the validator of {name} ({level})")
        if level == STRICT:
            refuse_violators(ctx, name, {"$jsonSchema": schema})
        enforce(ctx, name, wanted)
    if not ctx.is_dry_run:
        declare(ctx, step, name, schema, level, op="set_schema")


def drop(ctx: "Hands", name: str) -> None:
    """Drop *name*, if it is there and holds nothing, or data may be dropped."""
    step = ctx.begin(Kind.DDL, f"drop collection {name}", name=name)
    if step is None:
        return
    if options_of(ctx, name) is None:
        ctx.report(f"collection {name} is not there")
    else:
        with driver_errors():
            documents = ctx.databases.app[name].count_documents({}, limit=1)
        if documents and not ctx.drop_data:
            raise StepFailed(f"collection {name} holds documents; export them, then use --drop-data to drop it")
        ctx.report(step.what)
        alter(ctx, "drop", name, allowed=(NAMESPACE_NOT_FOUND,))
    if not ctx.is_dry_run:
        _forget(ctx, step, name)


def _forget(ctx: "Hands", step: Step, name: str) -> None:
    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].delete_many({"collection": name}, session=session)

    ctx.finish(step, {"op": "drop_collection", "collection": name}, effect)
