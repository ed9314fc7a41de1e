"""The phases of an online change, as steps of a migration: expand, contract, and the way back.

| phase | steps | who may write meanwhile |
| --- | --- | --- |
| expand | look at both ways on a sample, note the moment, allow both shapes, fill the new one | the old application |
| dual | none: the reconciler keeps both in step | both |
| contract | ask for the new shape, remove the old one where they agree | the new application |
| rollback | remove the new shape where they agree, put the validator back | the old application |

A shape is removed only where both agree, in the transaction that looks: what the other application wrote at the last
moment is carried over first, and the next pass removes it.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pymongo.read_concern import ReadConcern

from compliance.erasure.copies import rebuilt
from compliance.errors import ShapesDisagree, StepFailed
from compliance.health.declared import DECLARED
from compliance.mongo import Document, Session, driver_errors
from migrations.ledger import History
from migrations.online import own, state
from migrations.online.events import Stance, Written, decide, sides_in
from migrations.online.feed import is_there, present_moment
from migrations.online.follow import STANCES, open_changes
from migrations.online.shape import Pipeline, Shape, Side, drop, holds, lacks
from migrations.online.verify import (
    check_free,
    check_ways,
    disagrees,
    find_disagreeing,
    page_of_disagreeing,
    still_disagreeing,
)
from migrations.ops import validator
from migrations.ops.aside import FOLLOWED
from migrations.ops.batches import Changed, Walk, Work
from migrations.ops.observed import options_of
from migrations.ops.validator import Violators
from migrations.ops.walk import begin, go_through, sketch_update, updated
from migrations.step import Kind, Step
from migrations.verification import Inspection

if TYPE_CHECKING:
    from migrations.hands import Hands

PASSES = 10


def expand(ctx: "Hands", shape: Shape) -> None:
    """Let both shapes be there, and give every document the new one.

    Raises:
        ShapesDisagree: When ``up`` or ``down`` does not do what it says on a sample; nothing was changed.
        StepFailed: When the collection is being rebuilt.
    """
    if ctx.inspection is not None:
        _inspect(ctx, shape, ctx.inspection)
        return
    _check_ways(ctx, shape)
    _begin_to_follow(ctx, shape)
    if shape.schema_during is not None:
        validator.roll_out(ctx, shape.collection, dict(shape.schema_during), to=validator.MODERATE)
    where = {"$and": [holds(shape.old), lacks(shape.new)]}
    _walk(ctx, shape, "fill", where, shape.towards(Side.NEW))
    if ctx.retries:
        _retry_followed(ctx, shape)


def refuse_open(ctx: "Hands", collection: str) -> None:
    """Return unless an online change of *collection* is open: a copy that takes its place would end what follows it.

    Raises:
        StepFailed: Naming the change.
    """
    for change in open_changes(ctx.databases):
        if change.shape.collection == collection:
            raise StepFailed(
                f"{collection} cannot be rebuilt while its online change {change.revision} is open; complete it or "
                f"roll it back (`compliance migrate online complete {change.revision}`), then migrate again"
            )


def _refuse_rebuilt(ctx: "Hands", collection: str) -> None:
    if collection in rebuilt(ctx.databases):
        raise StepFailed(
            f"{collection} is being rebuilt: finish that with `compliance migrate up`, or let go of the copy by the "
            "way back of its script (ctx.drop_rebuilt), then begin the online change"
        )


def require_agreement(ctx: "Hands", shape: Shape) -> None:
    """Return once no document disagrees, with everything in step that was written before the look.

    A document that is written while one looks may disagree for as long as the reconciler takes; it is looked at again.

    Raises:
        ShapesDisagree: With the number of documents that stay as they are, and up to five ids.
    """
    _wait(ctx, shape, leaving=None)
    place: dict[str, Any] = {}
    while found := page_of_disagreeing(ctx.databases, shape, place):
        _wait(ctx, shape, leaving=None)
        if still_disagreeing(ctx.databases, shape, found):
            named = _name(shape, find_disagreeing(ctx.databases, shape))
            raise ShapesDisagree(
                f"{named}; correct them, or say which shape counts with "
                f"`compliance migrate online settle {ctx.revision} --keep old` (or new)"
            )
        place = {"last": found[-1]["_id"]}
    ctx.report(f"verified: the shapes of every document of {shape.collection} agree")


def _name(shape: Shape, found: Violators | None) -> str:
    number = found.number if found else 0
    return f"{number} documents of {shape.collection} hold two shapes that do not agree: {found}"


def _wait(ctx: "Hands", shape: Shape, *, leaving: Side | None) -> None:
    """Wait until everything is in step that was written before this call."""
    if not is_there(ctx.databases, shape):
        raise ShapesDisagree(
            f"{shape.collection} was dropped or renamed: bring it back, or make an empty one, then run the command "
            "again; every document is looked at first"
        )
    moment = present_moment(ctx.databases)
    state.wait_until_followed(ctx.databases, ctx.revision, moment, leaving=leaving, sleep=ctx.sleep)


def contract(ctx: "Hands", shape: Shape) -> None:
    """Ask for the new shape, and remove the old one from every document.

    Raises:
        ShapesDisagree: When an application still writes the old shape.
    """
    if shape.schema_after is not None:
        validator.roll_out(ctx, shape.collection, dict(shape.schema_after), to=validator.MODERATE)
    _remove(ctx, shape, Side.OLD)
    if shape.schema_after is not None:
        validator.roll_out(ctx, shape.collection, dict(shape.schema_after), to=validator.STRICT)


def undo(ctx: "Hands", shape: Shape) -> None:
    """Remove the new shape, whose values the old one has, and put the validator back.

    Raises:
        ShapesDisagree: When an application still writes the new shape.
    """
    if ctx.is_dry_run:
        ctx.report(f"remove {', '.join(shape.new)} from {shape.collection}, and put its validator back")
        return
    ctx = replace(ctx, journal=None)  # what a pass finds depends on what applications write, so each is a new one
    if not state.checkpoint_of(ctx.databases, ctx.revision):
        return  # it never began to change anything
    _remove(ctx, shape, Side.NEW)
    _put_validator_back(ctx, shape)


def _inspect(ctx: "Hands", shape: Shape, inspection: Inspection) -> None:
    """Look whether the old shape is gone: only what is completed counts as applied."""
    inspection.pass_through(shape.collection)
    documents = ctx.databases.app[shape.collection].with_options(read_concern=ReadConcern("majority"))
    with driver_errors():
        found = documents.count_documents(holds(shape.fields(Side.OLD)))
    inspection.look(shape.collection, found, none=True, count={})


def _check_ways(ctx: "Hands", shape: Shape) -> None:
    arguments = {"up": list(shape.up), "down": list(shape.down), "lossy": shape.lossy}
    step = ctx.begin(Kind.VERIFY, f"go both ways on a sample of {shape.collection}", **arguments)
    if step is None:
        return
    ctx.report(step.what)
    check_ways(ctx.databases, shape)
    check_free(ctx.databases, shape)
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "check_ways", "collection": shape.collection, "lossy": bool(shape.lossy)})


def _begin_to_follow(ctx: "Hands", shape: Shape) -> None:
    """Note the moment before the first change: the reconciler goes on from there, whenever it comes."""
    step = ctx.begin(Kind.DDL, f"keep both shapes of {shape.collection} in step from here on", shape=shape.collection)
    if step is None or ctx.retries:
        return
    _refuse_rebuilt(ctx, shape.collection)
    ctx.report(step.what)
    if ctx.is_dry_run:
        return
    rules = validator.rules_of(options_of(ctx, shape.collection) or {})
    before = {
        "validator": rules.validator,
        "level": rules.level,
        "action": rules.action,
        "declared": state.declared_before(ctx.databases, shape.collection),
    }
    if ctx.journal is None:
        raise RuntimeError("an online change is a revision of its own")
    state.begin(ctx.databases, ctx.revision, passage=ctx.journal.passage, before=before, at=ctx.now())
    ctx.finish(step, {"op": "follow", "collection": shape.collection})


def _walk(ctx: "Hands", shape: Shape, op: str, where: Document, update: Pipeline) -> None:
    """Carry *update* through the collection once; what is written behind the place reached is the reconciler's."""
    step = begin(ctx, op, collection=shape.collection, where=where, update=update)
    if step is not None:
        _pass(ctx, step, shape, op, where, update)


def _pass(ctx: "Hands", step: Step, shape: Shape, op: str, where: Document, update: Pipeline) -> None:
    def change(batch: Document, session: Session) -> Changed:
        changed = updated(ctx, shape.collection, batch, update, session=session)
        if changed.documents:
            own.record(ctx.databases, ctx.revision, at=ctx.now(), session=session)
        return changed

    sketch = partial(sketch_update, ctx, shape.collection, update=update)
    work = Work(
        op=op,
        collection=shape.collection,
        where=where,
        change=change,
        sketch=sketch,
        error_budget=shape.error_budget,
        is_followed=True,
    )
    go_through(ctx, step, work)


def _retry_followed(ctx: "Hands", shape: Shape) -> None:
    """Try again what was set aside while the shapes were kept in step, and nobody wrote since."""
    stance = STANCES.get(History(ctx.databases).past().traces[ctx.revision].mark, Stance(leaving=Side.OLD))
    documents = ctx.databases.app[shape.collection]

    def change(one: Document, session: Session) -> Changed:
        found = documents.find_one(one, session=session)
        if found is None or not disagrees(ctx.databases, shape, one, session=session):
            return Changed(documents=0)
        update = decide(Written.UNKNOWN, found, shape, stance)
        if not update:
            is_left = len(sides_in(found, shape)) == 1  # in the shape that is not being removed
            return Changed(documents=0, refused=() if is_left else ((found["_id"], "two shapes"),))
        changed = updated(ctx, shape.collection, one, update, session=session)
        own.record(ctx.databases, ctx.revision, at=ctx.now(), session=session)
        return changed

    work = Work(op="bring_into_step", collection=shape.collection, where={}, change=change, error_budget=0)
    step = Step(number=FOLLOWED, kind=Kind.BACKFILL, what=f"bring {shape.collection} into step", digest="")
    Walk(ctx=ctx, step=step, work=work).retry()


def _remove(ctx: "Hands", shape: Shape, side: Side) -> None:
    """Remove *side* from every document, pass by pass, until none has it: one step, however many passes it takes."""
    where, update, op = holds(shape.fields(side)), drop(shape, side), f"remove_{side}"
    step = begin(ctx, op, collection=shape.collection, where=where, update=update)
    if step is None:
        return
    documents = ctx.databases.app[shape.collection].with_options(read_concern=ReadConcern("majority"))
    for _ in range(PASSES):
        _wait(ctx, shape, leaving=side)
        with driver_errors():
            left = documents.count_documents(where)
        if not left:
            return
        _pass(ctx, replace(step, place={"of": left, **step.place}), shape, op, where, update)
        step = replace(step, place={})
    with driver_errors():
        left = documents.count_documents(where)
    if left:
        named = _name(shape, find_disagreeing(ctx.databases, shape, is_leaving=True))
        raise ShapesDisagree(
            f"{left} documents of {shape.collection} keep the {side} shape: {named}; the "
            f"others are written by an application of the {side} shape: end it, then run the command again"
        )


def _put_validator_back(ctx: "Hands", shape: Shape) -> None:
    step = ctx.begin(Kind.DDL, f"put the validator of {shape.collection} back", name=shape.collection)
    if step is None:
        return
    before = state.rules_before(ctx.databases, ctx.revision)
    if shape.schema_during is not None:
        wanted = validator.Rules(validator=before["validator"], level=before["level"], action=before["action"])
        ctx.report(step.what)
        validator.enforce(ctx, shape.collection, wanted)

    def effect(session: Session) -> None:
        declared, id_ = ctx.databases.compliance[DECLARED], f"collection:{shape.collection}"
        if before["declared"] is None:
            declared.delete_one({"_id": id_}, session=session)
        else:
            declared.replace_one({"_id": id_}, before["declared"], upsert=True, session=session)

    ctx.finish(step, {"op": "put_validator_back", "collection": shape.collection}, effect)
