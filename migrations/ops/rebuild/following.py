"""Keep the copy of a collection in step with what changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import Timestamp

from compliance.audit.entry import Detail
from compliance.errors import StepFailed
from compliance.mongo import Session
from migrations.ops.rebuild.changes import Stream, now_of
from migrations.ops.rebuild.copy import Copier
from migrations.ops.rebuild.freeze import FreezeTooLong
from migrations.ops.rebuild.shadow import record
from migrations.progress import DOING, Progress
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

TELL_EVERY = timedelta(seconds=1)
EVENTS = 1000  # in one transaction at most: fewer, and writers would be faster than the copy


@dataclass(slots=True, kw_only=True)
class Following:
    """What a rebuilding commits on its way.

    Attributes:
        place: Where a successor goes on.
        budget: How long writes may be refused.
        began: Since when they are, while they are.
    """

    ctx: "Hands"
    step: Step
    copier: Copier
    budget: timedelta
    place: dict[str, Any]
    began: datetime | None = field(default=None, init=False)
    told: tuple[str, datetime] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """The collection."""
        return self.copier.collection

    def follow(self, stream: Stream, *, since: Timestamp | None = None) -> None:
        """Take over what changed up to now; with *since* up to when writes were refused.

        Raises:
            FreezeTooLong: When writes were refused for longer than they may be.
        """
        now = now_of(self.ctx.databases) if since is None else since
        while True:
            self.check()
            some = stream.next(EVENTS, upto=now)
            self.place = {**self.place, "token": some.token or self.place["token"]}
            if some.ids:
                self.copy_again(list(some.ids.values()))
            if some.upto >= now or (some.is_last if since is None else some.is_modified):
                return

    def tell(self, phase: str, documents: int | None = None) -> None:
        """Let people see which part of the work this is, and about how many documents of it are done.

        A part at its beginning, then at most once a second.
        """
        now, of = self.ctx.now(), self.place.get("of", 0)
        if self.told is not None and self.told[0] == phase and now - self.told[1] < TELL_EVERY:
            return
        self.told = (phase, now)
        done = {} if documents is None else {"documents": min(documents, of)}
        place = {**self.place, DOING: {"phase": phase, "per_second": None, "seconds": 0.0, **done}}
        self.ctx.leave(self.step, place)
        self.ctx.tell(Progress.of_place(place, what=self.step.what))

    def check(self) -> None:
        """Return if there is time left.

        Raises:
            FreezeTooLong: When writes were refused for longer than they may be.
            LeaseLost: When somebody else runs migrations now, or this process is stopping.
        """
        if self.began is None:
            self.ctx.check()
        elif self.left() <= timedelta():
            raise FreezeTooLong

    def left(self) -> timedelta:
        """Return for how long writes may still be refused."""
        return self.budget - (self.ctx.databases.server_time() - self.began) if self.began else self.budget

    def copy_again(self, ids: Sequence[Any]) -> None:
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

    def say(self, phase: str, **changes: Any) -> None:
        """Commit that *phase* begins, with *changes* of what is recorded."""
        details: dict[str, Detail] = {"op": "rebuild", "collection": self.name, "phase": phase}

        def effect(session: Session) -> None:
            record(self.ctx, self.name, changes, session=session)

        self.ctx.commit(self.step, details, effect, place=lambda: self.place)
