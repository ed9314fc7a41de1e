"""One rebuilding under way: copy, follow, compare, exchange.

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
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from compliance.errors import GateClosed, LeaseLost, StepFailed, StoreUnavailable
from compliance.mongo import Document, Session, driver_errors
from compliance.roles import shadow_of
from migrations.command import send
from migrations.ops.batches import Changed, Hiding, Walk, Work
from migrations.ops.ddl import alter
from migrations.ops.estimate import copy_bytes
from migrations.ops.keyset import UNTIL
from migrations.ops.observed import indexes_of, options_of
from migrations.ops.rebuild.changes import HistoryLost, follow, now_of
from migrations.ops.rebuild.copy import Copier, Make, compare
from migrations.ops.rebuild.exchange import Exchange, exchanging, is_exchanged, make_unique
from migrations.ops.rebuild.following import Following
from migrations.ops.rebuild.freeze import FreezeTooLong, freezing, put_back
from migrations.ops.rebuild.recover import recover, settle
from migrations.ops.rebuild.shadow import (
    NAMESPACE_NOT_FOUND,
    create,
    find_by_uuid,
    find_copy,
    find_record,
    make_plain,
    renaming,
    uuid_of,
)
from migrations.progress import DOING
from migrations.sketch import masked_insert
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

TRIES, FAILURES = 3, 30
PAUSE = timedelta(seconds=2)


def _lasting(place: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in place.items() if name != DOING}


@dataclass(slots=True, kw_only=True)
class Rebuilding:
    """One rebuilding.

    Attributes:
        options: Of the new collection, by the server's names.
        function: As in ``Copier``; or *pipeline* is.
        budget: How long writes may be refused.
    """

    ctx: "Hands"
    step: Step
    collection: str
    options: Mapping[str, Any]
    function: Make | None
    pipeline: Sequence[Document]
    budget: timedelta
    copier: Copier = field(init=False)
    following: Following = field(init=False)

    def __post_init__(self) -> None:
        self.copier = Copier(
            database=self.ctx.databases.app,
            collection=self.collection,
            function=self.function,
            pipeline=self.pipeline,
        )
        self.following = Following(
            ctx=self.ctx, step=self.step, copier=self.copier, budget=self.budget, place=_lasting(self.step.place)
        )

    @property
    def place(self) -> dict[str, Any]:
        """Where a successor goes on."""
        return self.following.place

    def go(self) -> None:
        """Go on from the place until the copy is the collection."""
        is_new = "phase" not in self.place or find_by_uuid(self.ctx.databases.app, self.place["shadow"]) is None
        if is_new or self._is_lost():
            self._prepare()
        if self.place["phase"] == "copy" and not is_exchanged(self.ctx, self.place):
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
            f"{self.collection}: the last changes could not be taken over within {self.budget.total_seconds():g} s of "
            f"refused writes, {TRIES} times; writes go on, and {shadow_of(self.collection)} stays. Migrate again when "
            "there is less to do, allow more freeze_seconds, or drop the copy with ctx.drop_rebuilt"
        )

    def _is_lost(self) -> bool:
        """Whether nobody can tell any more what changed since the copy was begun."""
        if is_exchanged(self.ctx, self.place):
            return False
        try:
            with follow(self.ctx.databases, self.collection, self.place["token"]) as stream:
                stream.next(1)
        except HistoryLost:
            self.ctx.report(
                f"{self.collection}: the oplog does not reach back to where the copy stood; it is made anew"
            )
            return True
        return False

    def _prepare(self) -> None:
        """Make the empty copy; that it will be there is recorded before, since when it is to be followed behind it."""
        database, name = self.ctx.databases.app, self.collection
        old = find_copy(self.ctx, name)
        if old is not None:
            alter(self.ctx, "drop", old, allowed=(NAMESPACE_NOT_FOUND,))
        source = uuid_of(database, name)
        self.following.say("begin", revision=self.ctx.revision, source=source, shadow=None, is_over=False)
        create(self.ctx, name, self.options)
        shadow = uuid_of(database, shadow_of(name))
        if shadow is None:
            raise StepFailed(f"collection {shadow_of(name)} is gone; somebody dropped it")
        with driver_errors():
            documents = database[name].estimated_document_count()
        begin = {"phase": "copy", "collection": name, "shadow": shadow, "of": documents}
        self.following.place = {**begin, "frozen_ms": 0, "token": now_of(self.ctx.databases)}
        self.following.say("copy", shadow=shadow)

    def _walk(self) -> Walk:
        """Return the walk that makes the copy, on from the place."""

        def change(batch: Document, session: Session) -> Changed:
            read, commands = self.copier.made(batch, session)
            for command in commands:
                send(self.ctx, command, session=session)
            return Changed(documents=read)

        work = Work(
            op="rebuild",
            collection=self.collection,
            where={},
            change=change,
            error_budget=0,
            sketch=self._sketch_batch,
            is_followed=True,
        )
        return Walk(ctx=self.ctx, step=replace(self.step, place=self.place), work=work)

    def _copy(self) -> None:
        going = self._walk()
        going.go()
        left = {name: value for name, value in going.place.items() if name != UNTIL}
        self.following.place = {**left, "phase": "follow"}

    def sketch(self) -> None:
        """Record what makes the copy and exchanges the two, from the place on; what writers change is not known."""
        ctx, name, shadow = self.ctx, self.collection, shadow_of(self.collection)
        if "phase" not in self.place:
            create(ctx, name, self.options)
        else:
            present = {index: found.spec for index, found in indexes_of(ctx, shadow).items()}
            ctx.sketch.overlay.know(shadow, options_of(ctx, shadow) or {}, present)
        if self.place.get("phase", "copy") == "copy":
            self._walk().go()
        _, freeze = freezing(ctx, name, fence="<fence>")
        ctx.sketch.add(freeze.masked(freeze.body))
        make_unique(ctx, name)
        exchanged = f"{shadow}_<fence>"
        for command in (renaming(ctx, shadow, exchanged), exchanging(ctx, name, exchanged, left=self.budget)):
            ctx.sketch.add(command.masked(command.body))
        ctx.sketch.lock(f"{name}: writes are refused for up to {self.budget.total_seconds():g} s")
        ctx.report("what is written meanwhile is copied again, and every document is compared with its copy")

    def _sketch_batch(self, batch: Document, *, hiding: Hiding) -> int | None:
        for command in self.copier.made(batch, None)[1]:
            ids = tuple(document["_id"] for document in command.body["documents"])
            self.ctx.sketch.add(masked_insert(command), hiding=(*hiding, *ids))
        return copy_bytes(self.ctx, self.collection)

    def _try(self) -> bool:
        """Follow, compare, and exchange, unless that is done; False where it took longer than it may."""
        recover(self.ctx, self.step, self.place)
        if is_exchanged(self.ctx, self.place):
            return True
        make_plain(self.ctx, self.collection)
        following = self.following
        with follow(self.ctx.databases, self.collection, self.place["token"]) as stream:
            following.tell("follow")
            following.follow(stream)
            following.tell("compare", 0)
            differed = compare(self.ctx, self.copier, following.copy_again, partial(following.tell, "compare"))
            self.ctx.report(f"{self.collection}: every document was compared with its copy, {differed} copied again")
            following.follow(stream)
            following.tell("exchange")
            try:
                Exchange(following).go(stream)
            except FreezeTooLong:
                self._let_go()
                self.ctx.report(
                    f"{self.collection}: more than {self.budget.total_seconds():g} s; writes are let in again"
                )
                return False
            except (KeyboardInterrupt, SystemExit):
                with suppress(LeaseLost):
                    self._let_go()
                raise
            except Exception:
                self._let_go()
                self.ctx.confirm()  # where somebody took over, that is why, and nothing is wrong
                raise
        return True

    def _let_go(self) -> None:
        """Let writes in again, also where this process was told to stop; with the lease lost only what is ours.

        Raises:
            LeaseLost: When somebody else has the lease.
        """
        run = self.ctx.run
        if run is None:
            return
        try:
            recover(replace(self.ctx, run=replace(run, should_stop=lambda: False)), self.step, self.place)
        except LeaseLost:
            put_back(self.ctx.databases, self.collection, fence=self.ctx.fence, actor=self.ctx.actor)
            raise

    def _settle(self) -> None:
        found = find_record(self.ctx, self.collection)
        counts = {}
        if found is not None and not found["is_over"]:
            counts = settle(self.ctx, self.step, found, place=self.place)
        self.following.place = {**self.place, "phase": "over", **counts}
