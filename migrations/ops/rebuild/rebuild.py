"""The step itself: copy, follow, compare, exchange.

| phase of the place | what is there | an interrupted run goes on |
| --- | --- | --- |
| none | nothing, or a copy without a beginning | by making the copy anew |
| ``copy`` | a part of the copy | behind its last batch |
| ``follow`` | all of it, not up to date | at its place in the change stream |
| ``over`` | the copy is the collection | with nothing |
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import Timestamp
from pymongo.errors import ExecutionTimeout

from compliance.audit.entry import Detail
from compliance.errors import GateClosed, LeaseLost, MigrationError, StepFailed, StoreUnavailable
from compliance.health.declared import DECLARED, collection_document
from compliance.mongo import Document, Session, driver_errors
from compliance.roles import shadow_of
from migrations.command import Command, alteration, send
from migrations.ops.batches import Changed, Hiding, Walk, Work
from migrations.ops.ddl import alter
from migrations.ops.estimate import copy_bytes
from migrations.ops.observed import indexes_of, options_of
from migrations.ops.rebuild.changes import Stream, follow, now_of
from migrations.ops.rebuild.copy import PER_DOCUMENT, Copier, Make, compare
from migrations.ops.rebuild.freeze import FreezeTooLong, freeze, recover, refusing, settle
from migrations.ops.rebuild.shadow import (
    NAMESPACE_NOT_FOUND,
    VALIDATION,
    create,
    find_by_uuid,
    find_copy,
    find_record,
    make_plain,
    record,
    refuse,
    rename,
    renaming,
    unique_indexes,
    uuid_of,
)
from migrations.ops.validator import STRICT
from migrations.sketch import masked_insert
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

TRIES, FAILURES = 3, 30
PAUSE = timedelta(seconds=2)
EVENTS = 1000  # in one transaction at most: fewer, and writers would be faster than the copy
DUPLICATES = (11000, 359)  # 359: CannotConvertIndexToUnique
SHORTEST, LONGEST = 0.1, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a collection is rebuilt to; see ``Context.rebuild``."""

    collection: str
    function: Make | None
    pipeline: Sequence[Document]
    schema: Document | None
    options: Mapping[str, Any]


def rebuild(ctx: "Hands", wanted: Wanted, *, freeze_seconds: float) -> None:
    """Let a copy take the place of a collection.

    Raises:
        GateClosed: When the exchange took longer than it may, some times; writes go on, and so does the next run.
        StepFailed: When the collection cannot be rebuilt, or what makes the copy does not make the same twice.
    """
    name = wanted.collection
    _refuse_arguments(wanted, freeze_seconds)
    arguments = {"function": wanted.function, "pipeline": list(wanted.pipeline), "options": dict(wanted.options)}
    step = ctx.begin(Kind.BACKFILL, f"rebuild {name}", collection=name, schema=wanted.schema, **arguments)
    if step is None or ctx.retries:
        return
    if step.place.get("phase") != "over":
        options = refuse(ctx, name) if not _is_exchanged(ctx, step.place) else {}
        with driver_errors():
            documents = ctx.databases.app[name].estimated_document_count()
        ctx.report(
            f"rebuild {name}: copy about {documents} documents, then refuse writes for up to {freeze_seconds:g} s"
        )
        going = _Rebuilding(ctx=ctx, step=step, wanted=wanted, budget=timedelta(seconds=freeze_seconds))
        if ctx.is_dry_run:
            going.sketch(options)
            return
        going.go(options)
        step = replace(step, place=going.place)
    _finish(ctx, step, wanted)


def drop_rebuilt(ctx: "Hands", collection: str) -> None:
    """Drop the copy of *collection* that did not take its place; nothing to do where there is none."""
    step = ctx.begin(Kind.DDL, f"drop the copy of {collection}", collection=collection)
    if step is None:
        return
    name = find_copy(ctx, collection)
    if name is None:
        ctx.report(f"there is no copy of {collection}")
        return
    ctx.report(f"drop {name}")
    if ctx.is_dry_run:
        return
    alter(ctx, "drop", name)
    ctx.finish(
        step,
        {"op": "drop_copy", "collection": collection},
        lambda s: record(ctx, collection, {"is_over": True}, session=s),
    )


@dataclass(slots=True, kw_only=True)
class _Rebuilding:
    """One rebuilding under way.

    Attributes:
        place: Where a successor goes on.
        began: Since when writes are refused, while they are.
    """

    ctx: "Hands"
    step: Step
    wanted: Wanted
    budget: timedelta
    place: dict[str, Any] = field(init=False)
    began: datetime | None = field(default=None, init=False)
    copier: Copier = field(init=False)

    def __post_init__(self) -> None:
        self.place = dict(self.step.place)
        wanted = self.wanted
        self.copier = Copier(
            database=self.ctx.databases.app,
            collection=wanted.collection,
            function=wanted.function,
            pipeline=wanted.pipeline,
        )

    @property
    def name(self) -> str:
        """The collection."""
        return self.wanted.collection

    def go(self, options: Mapping[str, Any]) -> None:
        """Go on from the place until the copy is the collection."""
        is_new = "phase" not in self.place or find_by_uuid(self.ctx.databases.app, self.place["shadow"]) is None
        if is_new:
            self._prepare(options)
        if self.place["phase"] == "copy" and not _is_exchanged(self.ctx, self.place):
            self._copy()
        tries, failures = 0, 0
        while tries < TRIES:
            try:
                if self._try():
                    self._settle()
                    return
                tries += 1
            except StoreUnavailable:
                failures += 1
                if failures > FAILURES:
                    raise
                self.ctx.check()
                self.ctx.sleep(PAUSE)
        raise GateClosed(
            f"{self.name}: the last changes could not be taken over within {self.budget.total_seconds():g} s of "
            f"refused writes, {TRIES} times; writes go on, and {shadow_of(self.name)} stays. Migrate again when there "
            "is less to do, allow more freeze_seconds, or drop the copy with ctx.drop_rebuilt"
        )

    def _prepare(self, options: Mapping[str, Any]) -> None:
        """Make the empty copy; that it will be there is recorded before, since when it is to be followed behind it."""
        database = self.ctx.databases.app
        old = find_copy(self.ctx, self.name)
        if old is not None:
            alter(self.ctx, "drop", old, allowed=(NAMESPACE_NOT_FOUND,))
        source = uuid_of(database, self.name)
        self._say("begin", revision=self.ctx.revision, source=source, shadow=None, is_over=False)
        create(self.ctx, self.name, self._options(options))
        shadow = uuid_of(database, shadow_of(self.name))
        if shadow is None:
            raise StepFailed(f"collection {shadow_of(self.name)} is gone; somebody dropped it")
        with driver_errors():
            documents = database[self.name].estimated_document_count()
        begin = {"phase": "copy", "collection": self.name, "shadow": shadow, "of": documents}
        self.place = {**begin, "frozen_ms": 0, "token": now_of(self.ctx.databases)}
        self._say("copy", shadow=shadow)

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        schema = self.wanted.schema
        rules = (
            {}
            if schema is None
            else {"validator": {"$jsonSchema": schema}, "validationLevel": "strict", "validationAction": "error"}
        )
        kept = {name: value for name, value in options.items() if schema is None or name not in VALIDATION}
        return {**kept, **rules, **self.wanted.options}

    def _walk(self) -> Walk:
        """Return the walk that makes the copy, on from the place."""

        def change(batch: Document, session: Session) -> Changed:
            read, commands = self.copier.made(batch, session)
            for command in commands:
                send(self.ctx, command, session=session)
            return Changed(documents=read)

        work = Work(
            op="rebuild", collection=self.name, where={}, change=change, error_budget=0, sketch=self._sketch_batch
        )
        return Walk(ctx=self.ctx, step=replace(self.step, place=self.place), work=work)

    def _copy(self) -> None:
        going = self._walk()
        going.go()
        self.place = {**going.place, "phase": "follow"}

    def sketch(self, options: Mapping[str, Any]) -> None:
        """Record what makes the copy and exchanges the two, from the place on; what writers change is not known."""
        shadow = shadow_of(self.name)
        if "phase" not in self.place:
            create(self.ctx, self.name, self._options(options))
        else:
            present = {name: found.spec for name, found in indexes_of(self.ctx, shadow).items()}
            self.ctx.sketch.overlay.know(shadow, options_of(self.ctx, shadow) or {}, present)
        if self.place.get("phase", "copy") == "copy":
            self._walk().go()
        self.ctx.sketch.add(refusing(self.ctx, self.name))
        self._make_unique()
        exchanged = f"{shadow}_<fence>"
        for command in (renaming(self.ctx, shadow, exchanged), self._exchanging(exchanged, self.budget)):
            self.ctx.sketch.add(command.masked(command.body))
        self.ctx.sketch.lock(f"{self.name}: writes are refused for up to {self.budget.total_seconds():g} s")
        self.ctx.report("what is written meanwhile is copied again, and every document is compared with its copy")

    def _sketch_batch(self, batch: Document, *, hiding: Hiding) -> int | None:
        for command in self.copier.made(batch, None)[1]:
            ids = tuple(document["_id"] for document in command.body["documents"])
            self.ctx.sketch.add(masked_insert(command), hiding=(*hiding, *ids))
        return copy_bytes(self.ctx, self.name)

    def _try(self) -> bool:
        """Follow, compare, and exchange, unless that is done; False where it took longer than it may."""
        recover(self.ctx, self.step, self.place)
        if _is_exchanged(self.ctx, self.place):
            return True
        make_plain(self.ctx, self.name)
        with follow(self.ctx.databases, self.name, self.place["token"]) as stream:
            self._follow(stream)
            differed = compare(self.ctx, self.copier, self._copy_again)
            self.ctx.report(f"{self.name}: every document was compared with its copy, {differed} were copied again")
            self._follow(stream)
            try:
                self._exchange(stream)
            except FreezeTooLong:
                recover(self.ctx, self.step, self.place)
                self.ctx.report(f"{self.name}: more than {self.budget.total_seconds():g} s; writes are let in again")
                return False
            except (Exception, KeyboardInterrupt, SystemExit):
                self._let_go()
                raise
        return True

    def _let_go(self) -> None:
        """Let writes in again, also where this process was told to stop; not where somebody else has the lease."""
        run = self.ctx.run
        if run is not None:
            with suppress(LeaseLost):
                recover(replace(self.ctx, run=replace(run, should_stop=lambda: False)), self.step, self.place)

    def _follow(self, stream: Stream, *, since: Timestamp | None = None) -> None:
        """Take over what changed up to now; with *since* up to when writes were refused."""
        now = now_of(self.ctx.databases) if since is None else since
        while True:
            self._check()
            some = stream.next(EVENTS)
            self.place = {**self.place, "token": some.token or self.place["token"]}
            if some.ids:
                self._copy_again(list(some.ids.values()))
            if some.upto >= now or (some.is_last if since is None else some.is_modified):
                return

    def _check(self) -> None:
        if self.began is None:
            self.ctx.check()
        elif self._left() <= timedelta():
            raise FreezeTooLong

    def _left(self) -> timedelta:
        return self.budget - (self.ctx.databases.server_time() - self.began) if self.began else self.budget

    def _copy_again(self, ids: Sequence[Any]) -> None:
        """Copy documents again in one transaction, and look whether the same is made of them twice."""

        def effect(session: Session) -> Mapping[str, Detail]:
            self.copier.copy_again(ids, session)
            left = self.copier.differing({"_id": {"$in": list(ids)}}, session)
            if left:
                raise StepFailed(
                    f"{len(left)} documents of {self.name} are not made the same twice: no random numbers, no clock"
                )
            return {"batch": len(ids)}

        details: dict[str, Detail] = {"op": "rebuild", "collection": self.name, "phase": "follow"}
        self.ctx.commit(self.step, details, effect, place=lambda: self.place)

    def _exchange(self, stream: Stream) -> None:
        database, shadow = self.ctx.databases.app, shadow_of(self.name)
        self.began = self.ctx.databases.server_time()
        try:
            since = freeze(self.ctx, self.step, self.name, place=self.place)
            self._follow(stream, since=since)
            self._make_unique()
            self._follow(stream)
            exchanged = f"{shadow}_{self.ctx.fence}"
            rename(self.ctx, shadow, exchanged)
            if uuid_of(database, exchanged) != self.place["shadow"]:
                raise StepFailed(f"{shadow} is another collection than the one that was filled; migrate again")
            self._say("exchange", token=self.place["token"])  # whoever was taken over gets no further
            self._check()
            self._rename(exchanged)
            frozen = self.ctx.databases.server_time() - self.began
        finally:
            self.began = None
        self.place = {**self.place, "frozen_ms": round(frozen.total_seconds() * 1000)}

    def _say(self, phase: str, **changes: Any) -> None:
        """Commit that *phase* begins, with *changes* of what is recorded."""
        details: dict[str, Detail] = {"op": "rebuild", "collection": self.name, "phase": phase}

        def effect(session: Session) -> None:
            record(self.ctx, self.name, changes, session=session)

        self.ctx.commit(self.step, details, effect, place=lambda: self.place)

    def _rename(self, exchanged: str) -> None:
        with driver_errors():
            try:
                send(self.ctx, self._exchanging(exchanged, self._left()))
            except ExecutionTimeout:
                raise FreezeTooLong from None

    def _exchanging(self, exchanged: str, left: timedelta) -> Command:
        app = self.ctx.databases.app.name
        limit = max(1, round(left.total_seconds() * 1000))
        to = {"to": f"{app}.{self.name}", "dropTarget": True, "maxTimeMS": limit}
        return alteration("renameCollection", f"{app}.{exchanged}", database="admin", **to)

    def _make_unique(self) -> None:
        """Make plain indexes of the copy unique where those of the collection are; nobody writes now."""
        for index in unique_indexes(self.ctx, self.name):
            for change in ({"prepareUnique": True}, {"unique": True}):
                done = alter(
                    self.ctx, "collMod", shadow_of(self.name), index={"name": index, **change}, allowed=DUPLICATES
                )
                if not done:
                    raise StepFailed(f"documents of {self.name} that are made anew are duplicates in the index {index}")

    def _settle(self) -> None:
        found = find_record(self.ctx, self.name)
        counts = {}
        if found is not None and not found["is_over"]:
            counts = settle(self.ctx, self.step, found, place=self.place)
        self.place = {**self.place, "phase": "over", **counts}


def _is_exchanged(ctx: "Hands", place: Mapping[str, Any]) -> bool:
    shadow = place.get("shadow")
    return shadow is not None and uuid_of(ctx.databases.app, place["collection"]) == shadow


def _finish(ctx: "Hands", step: Step, wanted: Wanted) -> None:
    name, place = wanted.collection, step.place
    total: dict[str, Detail] = {
        count: place.get(count, 0) for count in ("documents", "frozen_ms", "deleted_late", "written_late")
    }

    def effect(session: Session) -> None:
        if wanted.schema is not None:
            declared = collection_document(name, {"$jsonSchema": wanted.schema}, level=STRICT, revision=ctx.revision)
            ours = ctx.databases.compliance[DECLARED]
            ours.replace_one({"_id": declared["_id"]}, declared, upsert=True, session=session)

    ctx.finish(step, {"op": "rebuild", "collection": name, "is_done": True, **total}, effect)
    ctx.report(f"rebuilt {name}: writes were refused for {total['frozen_ms']} ms")
    if total["written_late"]:
        ctx.report(
            f"{total['written_late']} documents of {name} were written past the validator while writes were refused, "
            "and are as they were before: who writes with bypassDocumentValidation?"
        )


def _refuse_arguments(wanted: Wanted, freeze_seconds: float) -> None:
    stages = {next(iter(stage), "") for stage in wanted.pipeline}
    if not stages <= PER_DOCUMENT:
        raise MigrationError(
            f"rebuild of {wanted.collection}: a stage of the pipeline looks at more than one document: "
            f"{', '.join(sorted(stages - PER_DOCUMENT))}; use {', '.join(sorted(PER_DOCUMENT))}"
        )
    if wanted.function is not None and wanted.pipeline:
        raise MigrationError(f"rebuild of {wanted.collection}: give function= or pipeline=")
    if not SHORTEST <= freeze_seconds <= LONGEST:
        raise MigrationError(f"rebuild of {wanted.collection}: freeze_seconds is from {SHORTEST:g} to {LONGEST:g}")
