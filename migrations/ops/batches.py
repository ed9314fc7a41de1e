"""Carry a change through a collection: batch by batch in the order of ``_id``, each exactly once.

A batch is one transaction of the fence, the change, its audit entry and the place behind it. Its size follows the time
it takes. What becomes of a batch that does not pass is in ``migrations.ops.faults``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pymongo.collection import Collection

from compliance.audit.entry import Detail
from compliance.errors import StepFailed, StoreUnavailable
from compliance.mongo import Document, Session
from migrations.ops import aside
from migrations.ops.estimate import estimate_walk
from migrations.ops.faults import BatchTooBig, DocumentRefused, refusals
from migrations.ops.keyset import UNTIL, between, end_of, next_place
from migrations.progress import Pacer, Progress
from migrations.step import Step
from migrations.throttle.canary import IDLE_WRITES, watched
from migrations.throttle.decide import Pace
from migrations.throttle.throttle import Throttle

if TYPE_CHECKING:
    from migrations.hands import Hands

ATTEMPTS = 2  # at a batch of one size: the first may have met a renewal of the lease, or a write of the application
PATIENCE = timedelta(seconds=60)  # without a commit: more than a failover takes
TELL_EVERY = timedelta(seconds=1)
UNREAD = "unread"
PASSING = ("waiting", UNREAD)  # what a place says of the moment
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=100), timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a change did to a batch.

    Attributes:
        documents: How many it changed.
        matched: How many it found.
        refused: The ``_id`` and the reason of each document that it cannot change.
    """

    documents: int
    matched: int = 0
    refused: tuple[tuple[Any, str], ...] = ()


Change = Callable[[Document, Session], Changed]
Hiding = tuple[Any, ...]  # ids of documents
Refused = tuple[Any, int | None, str]  # the ``_id``, the code of the server, and the reason


class Preview(Protocol):
    """Records what would be sent for the documents of a filter."""

    def __call__(self, batch: Document, /, *, hiding: Hiding) -> int | None:
        """Record it, without those of the ids *hiding* that could say who somebody is.

        Returns:
            How many bytes of the oplog one document takes; None where that is not known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is carried through a collection.

    Attributes:
        op: Its name in the audit log.
        where: Which documents are changed.
        change: Changes the documents of a filter in a transaction; may run several times.
        error_budget: How many documents of the step may be set aside in all.
        sketch: Records what it would send, in a dry run; None where nobody can know.
        is_followed: Whether something else sees to what is inserted meanwhile: then the walk ends at the greatest
            ``_id`` there was when it began, however fast writers are.
    """

    op: str
    collection: str
    where: Document
    change: Change
    error_budget: int
    sketch: Preview | None = None
    is_followed: bool = False


@dataclass(slots=True, kw_only=True)
class Walk:
    """One step on its way through a collection.

    Attributes:
        place: Where a successor goes on: ``last``, and ``documents`` and ``aside`` so far; operations add to it.
        ahead: The place as it is once the transaction that runs has committed.
        size: How many documents the next batch looks at.
        took: How long the last one took; None where it did not pass.
        silent_since: When the first of the failures since the last commit was.
    """

    ctx: "Hands"
    step: Step
    work: Work
    place: dict[str, Any] = field(init=False)
    ahead: dict[str, Any] = field(default_factory=dict, init=False)
    size: int = field(init=False)
    took: timedelta | None = field(default=None, init=False)
    pause: timedelta = field(default=FIRST_PAUSE, init=False)
    silent_since: datetime | None = field(default=None, init=False)
    told_at: datetime | None = field(default=None, init=False)
    pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        left = {name: value for name, value in self.step.place.items() if name not in PASSING}
        self.place = {"documents": 0, "aside": 0, **left}
        self.size = self.ctx.batch_docs

    @property
    def collection(self) -> Collection[Document]:
        """The collection that is walked."""
        return self.ctx.databases.app[self.work.collection]

    def go(self) -> None:
        """Go on from the place to the end of the collection; a dry run records the first batch.

        Raises:
            StepFailed: When more documents were set aside than the error budget allows.
            StoreUnavailable: When nothing could be committed for a minute.
        """
        if self.ctx.is_dry_run:
            self._sketch()
            return
        if self.work.is_followed and UNTIL not in self.place:
            self.place |= end_of(self.collection)
        with self._canary():
            self._go()

    def _go(self) -> None:
        self.pacer = Pacer(self.ctx.now())
        while True:
            try:
                self._hold(self.took)
                end = next_place(self.collection, self.place, limit=self.size)
                if not end:
                    return
                self._take(end)
            except StoreUnavailable as error:
                self._wait(error)

    def retry(self) -> None:
        """Try again what the step set aside; what is refused again stays there."""
        for id_ in aside.ids_of(self.ctx, self.step):
            one = {"$and": [{"_id": {"$eq": id_}}, self.work.where]}

            def effect(session: Session, id_: Any = id_, one: Document = one) -> Mapping[str, Detail]:
                with refusals():
                    changed = self.work.change(one, session)
                if changed.refused:
                    raise DocumentRefused(0)
                aside.settle(self.ctx, self.step, id_, session=session)
                return {"batch": changed.documents, "settled": 1}

            try:
                self._attempt(effect)
            except DocumentRefused as error:
                self.ctx.report(f"a document of {self.work.collection} is refused again: {error.reason}")

    def begin_again(self, where: Document) -> None:
        """Let the next ``go`` begin at the first document, for those that match *where*."""
        self.work = replace(self.work, where=where)
        self.place = {name: value for name, value in self.place.items() if name not in ("last", UNTIL)}
        self.place["again"] = self.place.get("again", 0) + 1

    def _take(self, end: Mapping[str, Any]) -> None:
        began, self.took = self.ctx.now(), None
        try:
            self._commit(end)
        except BatchTooBig:
            self._halve()
        except DocumentRefused as error:
            if self.size > 1:
                self._halve()
            else:
                self._set_aside(end, error)
        else:
            self.pause, self.silent_since = FIRST_PAUSE, None
            self.took = self.ctx.now() - began
            self.place["seconds"] = round(self.place.get("seconds", 0.0) + self.took.total_seconds(), 3)
            self.place |= self.pacer.note(self.place, now=self.ctx.now())
            self._tell()

    def _sketch(self) -> None:
        """Record the first batch, and what all of them would cost."""
        end = next_place(self.collection, self.place, limit=self.size)
        size = None
        if self.work.sketch is None:
            self.ctx.sketch.step.opaque = "what is sent depends on the documents"
        elif end:
            ids = (end["last"], self.place.get("last"), *aside.ids_of(self.ctx, self.step))
            size = self.work.sketch(self._documents(end), hiding=ids)
        self.ctx.sketch.step.estimate = estimate_walk(
            self.ctx, self.work.collection, self.work.where, batch_docs=self.size, document_bytes=size
        )

    def _documents(self, end: Mapping[str, Any]) -> Document:
        """Return the filter of the documents of the batch that ends at *end*."""
        return {"$and": [between(self.place, end), self.work.where]}

    def _commit(self, end: Mapping[str, Any]) -> None:
        """Change the documents up to *end* in one transaction, which the driver tries twice; one document, longer."""
        documents = self._documents(end)
        attempts = 0

        def effect(session: Session) -> Mapping[str, Detail]:
            nonlocal attempts
            attempts += 1
            if attempts > ATTEMPTS and self.size > 1:
                raise BatchTooBig
            with refusals():
                changed = self.work.change(documents, session)
            refused = [(id_, None, reason) for id_, reason in changed.refused]
            self._leave(end, changed.documents, refused, session)
            return {"batch": changed.documents} | ({"set_aside": len(refused)} if refused else {})

        self._attempt(effect)

    def _set_aside(self, end: Mapping[str, Any], error: DocumentRefused) -> None:
        def effect(session: Session) -> Mapping[str, Detail]:
            self._leave(end, 0, [(end["last"], error.code, error.reason)], session)
            return {"batch": 0, "set_aside": 1, "code": error.code}

        self._attempt(effect)

    def _leave(self, end: Mapping[str, Any], documents: int, refused: Sequence[Refused], session: Session) -> None:
        """Set *refused* aside in the transaction of *session*, and say where the walk stands when it commits."""
        total = self.place["aside"] + len(refused)
        if total > self.work.error_budget:
            _, code, reason = refused[0]
            raise StepFailed(
                f"{total} documents of {self.work.collection} cannot be changed, and {self.work.error_budget} may be "
                f"set aside; one of the last: {reason}{f' (code {code})' if code else ''}; correct the script or the "
                "documents, or raise its error_budget"
            )
        self.ahead = {**self.place, **end, "documents": self.place["documents"] + documents, "aside": total}
        described = [
            aside.describe(self.ctx, self.step, self.work.collection, id_, code=code, reason=reason)
            for id_, code, reason in refused
        ]
        aside.add(self.ctx, described, session=session)

    def _attempt(self, effect: Callable[[Session], Mapping[str, Detail]]) -> None:
        details: Mapping[str, Detail] = {"op": self.work.op, "collection": self.work.collection}
        is_ours = self.ctx.commit(self.step, details, effect, place=lambda: self.ahead)
        self.place = self.ahead if is_ours else {**self.place, **self.ctx.stored_place(self.step)}

    def _hold(self, took: timedelta | None) -> None:
        """Wait while the throttle says so, then take the size of the next batch from it."""
        pace = Pace(size=self.size, took=took, most=self.ctx.largest_batch)
        if self.ctx.throttle is not None:
            self.size = self.ctx.throttle.next_batch(pace, wait=self._sleep, told=self._say_why)
            self._note_unread(self.ctx.throttle)

    def _sleep(self, duration: timedelta) -> None:
        self.ctx.check()
        self.ctx.sleep(duration)

    def _note_unread(self, throttle: Throttle) -> None:
        """Say once which factors cannot be read; the place says it for as long as that is so."""
        for line in throttle.news_of_unread():
            self.ctx.report(line)
        known = {name: value for name, value in self.place.items() if name != UNREAD}
        unread = [f"{name}: {why}" for name, why in sorted(throttle.unread.items())]
        self.place = {**known, UNREAD: unread} if unread else known

    def _say_why(self, reasons: tuple[str, ...]) -> None:
        if self.ctx.throttle is not None:
            self._note_unread(self.ctx.throttle)
        self.ctx.report(f"waiting: {'; '.join(reasons)}")
        waiting = {**self.place, "waiting": list(reasons)}
        self.ctx.leave(self.step, waiting)
        if self.ctx.follow is not None:
            self.ctx.tell(Progress.of_place(waiting, what=self.step.what))

    def _tell(self) -> None:
        """Report how far it is, at most once a second."""
        now = self.ctx.now()
        if self.told_at is None or now - self.told_at >= TELL_EVERY:
            if self.told_at is not None:
                self.ctx.tell(Progress.of_place(self.place, what=self.step.what))
            self.told_at = now

    @contextmanager
    def _canary(self) -> Iterator[None]:
        """Measure small writes meanwhile, where there is more to do than one batch."""
        throttle = self.ctx.throttle
        if throttle is None or self.place.get("of", 0) <= self.ctx.largest_batch:
            yield
            return
        with watched(self.ctx.databases, throttle.clock) as canary:
            throttle.canary, throttle.crowd.ours = canary, throttle.crowd.ours + IDLE_WRITES
            yield
        throttle.canary, throttle.crowd.ours = None, throttle.crowd.ours + canary.written

    def _halve(self) -> None:
        self.size = max(1, self.size // 2)

    def _wait(self, error: StoreUnavailable) -> None:
        """Wait before the next attempt; raise *error* where nothing was committed for too long."""
        now = self.ctx.now()
        self.silent_since = self.silent_since or now
        if now - self.silent_since > PATIENCE:
            raise error
        self._halve()
        self._sleep(self.pause)
        self.pause = min(self.pause * 2, LONGEST_PAUSE)
