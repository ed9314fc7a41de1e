"""Let the copy take the place of the collection: refuse writes, take the last changes over, rename."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pymongo.errors import ExecutionTimeout

from compliance.errors import StepFailed
from compliance.mongo import driver_errors
from compliance.roles import shadow_of
from migrations.command import Command, alteration, send
from migrations.ops.ddl import alter
from migrations.ops.rebuild.changes import Stream
from migrations.ops.rebuild.following import Following
from migrations.ops.rebuild.freeze import FreezeTooLong, freeze, is_refused
from migrations.ops.rebuild.shadow import rename, unique_indexes, uuid_of

if TYPE_CHECKING:
    from migrations.hands import Hands

DUPLICATES = (11000, 359)  # 359: CannotConvertIndexToUnique


def is_exchanged(ctx: "Hands", place: Mapping[str, Any]) -> bool:
    """Whether the copy of a rebuilding that stands at *place* is the collection by now."""
    shadow = place.get("shadow")
    return shadow is not None and uuid_of(ctx.databases.app, place["collection"]) == shadow


@dataclass(frozen=True, slots=True)
class Exchange:
    """One try."""

    following: Following

    def go(self, stream: Stream) -> None:
        """Exchange the two.

        Raises:
            FreezeTooLong: When it would take longer than it may; writes are refused still.
        """
        going = self.following
        ctx = going.ctx
        going.began = ctx.databases.server_time()
        try:
            since = freeze(ctx, going.step, going.name, place=going.place)
            going.follow(stream, since=since)
            self._make_unique()
            going.follow(stream)
            exchanged = self._name_by_fence()
            going.say("exchange", token=going.place["token"])  # whoever was taken over gets no further
            if not is_refused(ctx.databases, going.name, fence=ctx.fence):
                raise FreezeTooLong  # somebody who slept let writes in, or refuses them by an order of its own
            going.check()
            self._rename(exchanged)
            frozen = ctx.databases.server_time() - going.began
        finally:
            going.began = None
        going.place = {**going.place, "frozen_ms": round(frozen.total_seconds() * 1000)}

    def _name_by_fence(self) -> str:
        going, shadow = self.following, shadow_of(self.following.name)
        exchanged = f"{shadow}_{going.ctx.fence}"
        rename(going.ctx, shadow, exchanged)
        if uuid_of(going.ctx.databases.app, exchanged) != going.place["shadow"]:
            raise StepFailed(f"{shadow} is another collection than the one that was filled; migrate again")
        return exchanged

    def _make_unique(self) -> None:
        make_unique(self.following.ctx, self.following.name)

    def _rename(self, exchanged: str) -> None:
        going = self.following
        with driver_errors():
            try:
                send(going.ctx, exchanging(going.ctx, going.name, exchanged, left=going.left()))
            except ExecutionTimeout:
                raise FreezeTooLong from None


def exchanging(ctx: "Hands", collection: str, exchanged: str, *, left: timedelta) -> Command:
    """Return the command that lets *exchanged* take the place of *collection*."""
    app = ctx.databases.app.name
    limit = max(1, round(left.total_seconds() * 1000))
    to = {"to": f"{app}.{collection}", "dropTarget": True, "maxTimeMS": limit}
    return alteration("renameCollection", f"{app}.{exchanged}", database="admin", **to)


def make_unique(ctx: "Hands", name: str) -> None:
    """Make plain indexes of the copy unique where those of the collection are; nobody writes now."""
    for index in unique_indexes(ctx, name):
        for change in ({"prepareUnique": True}, {"unique": True}):
            done = alter(ctx, "collMod", shadow_of(name), index={"name": index, **change}, allowed=DUPLICATES)
            if not done:
                raise StepFailed(f"documents of {name} that are made anew are duplicates in the index {index}")
