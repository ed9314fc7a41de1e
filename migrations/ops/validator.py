"""Roll a validator out while the application writes: warn, count, moderate, strict; each a step.

| phase | what the server does | what is looked at before |
| --- | --- | --- |
| warn | logs what breaks the new validator, where none is enforced yet; an old one stays in force instead | |
| count | | every document; violators are named and counted |
| moderate | refuses inserts, and updates that break a document which was right | |
| strict | refuses every write that breaks it | that no document breaks it |

A phase replaces the one before in one command, so no moment passes without the old or the new rules. A phase that is
reached is never left backwards: where the new validator is in force already, earlier phases look and do nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson import json_util

from compliance.errors import StepFailed
from compliance.health.declared import DECLARED, collection_document
from compliance.mongo import Document, Session, driver_errors
from migrations.ops.ddl import alter
from migrations.ops.observed import is_to_be_written, options_of
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

STRICT, MODERATE, REFUSE, WARN = "strict", "moderate", "error", "warn"
LEVELS = (MODERATE, STRICT)
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a collection refuses.

    Attributes:
        validator: None where there is none.
        level: ``off``, ``moderate`` or ``strict``.
        action: ``warn`` or ``error``.
    """

    validator: Document | None
    level: str
    action: str

    @property
    def is_enforced(self) -> bool:
        """Whether anything is refused."""
        return bool(self.validator) and self.level != "off" and self.action != WARN

    def reached(self, wanted: "Rules") -> bool:
        """Whether these rules are *wanted*, or the same validator in a later phase."""
        return _same(self.validator, wanted.validator) and self.rank >= wanted.rank

    @property
    def rank(self) -> int:
        """The phase: 0 for nothing, then warn, moderate, strict."""
        if not self.is_enforced:
            return 1 if self.action == WARN and self.level != "off" else 0
        return 2 + LEVELS.index(self.level)


@dataclass(frozen=True, slots=True)
class Violators:
    """Documents that break a validator: how many, and the ids of at most five."""

    number: int
    ids: tuple[Any, ...]

    def __str__(self) -> str:
        """The ids, as a sentence needs them."""
        more = f" (and {self.number - len(self.ids)} more)" if self.number > len(self.ids) else ""
        return f"{', '.join(map(str, self.ids))}{more}"


def rules_of(options: Document) -> Rules:
    """Return what the *options* of a collection refuse."""
    return Rules(
        validator=options.get("validator"),
        level=options.get("validationLevel", STRICT),
        action=options.get("validationAction", REFUSE),
    )


def find_violators(ctx: "Hands", name: str, validator: Document) -> Violators | None:
    """Return the documents that break *validator*; reads the collection once, at majority."""
    some = {"$firstN": {"input": "$_id", "n": SHOWN}}
    pipeline: list[Document] = [
        {"$match": {"$nor": [validator]}},
        {"$group": {"_id": None, "number": {"$sum": 1}, "ids": some}},
    ]
    with driver_errors():
        for found in ctx.databases.app[name].aggregate(pipeline):
            return Violators(found["number"], tuple(found["ids"]))
    return None


def refuse_violators(ctx: "Hands", name: str, validator: Document) -> None:
    """Refuse a validator that documents break: under ``strict`` nobody could update them any more.

    Raises:
        StepFailed: Naming them by ``_id``; a dry run only says so, for an earlier script may correct them.
    """
    found = find_violators(ctx, name, validator)
    if found is None:
        return
    if ctx.is_dry_run:
        ctx.sketch.step.violators = 0 if is_to_be_written(ctx, name) else found.number
        ctx.report(f"documents of {name} that do not fit as they are: {found}")
        return
    raise StepFailed(f"the new validator of {name} refuses documents that are there: {found}; correct them first")


def enforce(ctx: "Hands", name: str, wanted: Rules) -> None:
    """Give *name* these rules, in one command."""
    alter(
        ctx,
        "collMod",
        name,
        validator=wanted.validator or {},
        validationLevel=wanted.level,
        validationAction=wanted.action,
    )


def declare(ctx: "Hands", step: Step, name: str, schema: Document, level: str, *, op: str) -> None:
    """End *step*: the validator is declared, so that health checks look for it."""
    document = collection_document(name, {"$jsonSchema": schema}, level=level, revision=ctx.revision)

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].replace_one({"_id": document["_id"]}, document, upsert=True, session=session)

    ctx.finish(step, {"op": op, "collection": name}, effect)


def roll_out(ctx: "Hands", name: str, schema: Document, *, to: str) -> None:
    """Give *name* the validator phase by phase, up to the level *to*."""
    if to not in LEVELS:
        raise StepFailed(f"roll_out_validator({name!r}): to is moderate or strict")
    if options_of(ctx, name) is None:
        raise StepFailed(f"collection {name} does not exist; create it first")
    _warn(ctx, name, schema)
    _count(ctx, name, schema)
    _enforce_step(ctx, name, schema, MODERATE)
    if to == STRICT:
        _enforce_step(ctx, name, schema, STRICT)


def _warn(ctx: "Hands", name: str, schema: Document) -> None:
    step = ctx.begin(Kind.DDL, f"let {name} warn of its new validator", name=name, schema=schema, action=WARN)
    if step is None:
        return
    wanted = Rules(validator={"$jsonSchema": schema}, level=STRICT, action=WARN)
    present = rules_of(options_of(ctx, name) or {})
    if present.reached(wanted):
        ctx.report(f"the new validator of {name} is there")
    elif present.is_enforced:
        ctx.report(f"the old validator of {name} stays in force until the new one is")
    else:
        ctx.report(step.what)
        enforce(ctx, name, wanted)
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "warn_validator", "collection": name})


def _count(ctx: "Hands", name: str, schema: Document) -> None:
    step = ctx.begin(Kind.VERIFY, f"count documents of {name} that break its new validator", name=name, schema=schema)
    if step is None or ctx.inspection is not None:  # what is declared is compared by itself
        return
    found = find_violators(ctx, name, {"$jsonSchema": schema})
    number = found.number if found else 0
    ctx.report(f"{number} documents of {name} break its new validator{f': {found}' if found else ''}")
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "count_violators", "collection": name, "documents": number})


def _enforce_step(ctx: "Hands", name: str, schema: Document, level: str) -> None:
    what = f"enforce the new validator of {name} ({level})"
    step = ctx.begin(Kind.DDL, what, name=name, schema=schema, level=level, action=REFUSE)
    if step is None:
        return
    wanted = Rules(validator={"$jsonSchema": schema}, level=level, action=REFUSE)
    present = rules_of(options_of(ctx, name) or {})
    if present.reached(wanted):
        ctx.report(f"the new validator of {name} is in force ({present.level})")
    else:
        if level == STRICT:
            refuse_violators(ctx, name, {"$jsonSchema": schema})
        ctx.report(what)
        enforce(ctx, name, wanted)
    if not ctx.is_dry_run:
        reached = max(level, present.level, key=LEVELS.index) if present.reached(wanted) else level
        declare(ctx, step, name, schema, reached, op="roll_out_validator")


def _same(one: Document | None, other: Document | None) -> bool:
    return json_util.dumps(one or {}, sort_keys=True) == json_util.dumps(other or {}, sort_keys=True)
