"""Keep online changes in step as long as they are open: one at a time does it, under a lease with a fence."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId, Timestamp
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from compliance.audit.entry import Detail, Entry
from compliance.clock import Clock
from compliance.errors import ComplianceError, LeaseLost, LockHeld, ResumeTokenLost, ShapesDisagree
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, driver_errors, translate
from migrations.again import persist
from migrations.ledger import HISTORY, History, lease, owner
from migrations.online import own
from migrations.online.events import Stance, sides_in
from migrations.online.feed import CONTROL, CollectionGone, is_there, majority_moment, next_moment, open_feed
from migrations.online.reconcile import Reconciler
from migrations.online.shape import Shape, Side
from migrations.online.state import START_IT, checkpoint_of, lease_id, settle_id
from migrations.online.verify import page_of_disagreeing
from migrations.past import Mark

PAUSE = timedelta(seconds=1)
FORGET_EVERY = timedelta(minutes=10)
SETTLE_LIMIT = timedelta(minutes=10)
ASK_EVERY = timedelta(milliseconds=200)
IDLE = timedelta(milliseconds=20)
STANCES: Mapping[Mark, Stance] = {
    Mark.STARTED: Stance(is_filling=True),
    Mark.DUAL: Stance(),
    Mark.COMPLETING: Stance(leaving=Side.OLD),
    Mark.REVERTING: Stance(leaving=Side.NEW),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An online change that is open."""

    revision: str
    shape: Shape


class Over(Exception):
    """The change is completed or rolled back: there is nothing to keep in step."""


def open_changes(databases: Databases) -> list[Change]:
    """Return the online changes that were begun, and are neither completed nor rolled back, as they were when they ran.

    Raises:
        RevisionEdited: When the text that is kept of one is not the one that ran.
    """
    history = History(databases)
    traces = [trace for trace in history.past().traces.values() if trace.mark in STANCES]
    found = (history.recall(trace) for trace in traces)
    return [
        Change(revision=revision.name, shape=shape)
        for revision in found
        if revision.is_online and (shape := revision.load().change) is not None
    ]


@dataclass(slots=True, kw_only=True)
class Follower:
    """Keeps one change in step, in this thread.

    Attributes:
        told: Told of what went wrong, in a word, whenever it begins again.
        on_step: Told whenever it looked.
    """

    databases: Databases
    change: Change
    clock: Clock
    actor: str
    length: timedelta
    should_stop: Callable[[], bool]
    told: Callable[[str], None] = lambda _: None
    on_step: Callable[[], None] = lambda: None
    _stance: Stance = field(default_factory=Stance, init=False)
    _asked_at: datetime | None = field(default=None, init=False)
    _settled_at: datetime | None = field(default=None, init=False)
    _forgot_at: datetime | None = field(default=None, init=False)

    def run(self) -> None:
        """Go on until the change is over, or we are asked to stop; whatever fails is tried again."""
        while not self.should_stop():
            try:
                self._under_lease()
            except Over:
                return
            except (LockHeld, LeaseLost):
                pass  # another process does it; should that one die, we are next
            except (ComplianceError, PyMongoError) as error:
                ours = translate(error) if isinstance(error, PyMongoError) else error
                self.told(f"{self.change.revision}: {ours}")
            self._pause()

    def _pause(self) -> None:
        self._asked_at = None
        if not self.should_stop():
            self.clock.sleep(PAUSE)

    def _under_lease(self) -> None:
        with lease(
            self.databases,
            owner=owner(),
            clock=self.clock,
            length=self.length,
            should_stop=self.should_stop,
            lease_id=lease_id(self.change.revision),
            work=f"{self.change.revision} is kept in step",
        ) as run:
            self.stance()
            try:
                self._follow(run)
            except ResumeTokenLost as lost:
                self.told(f"{self.change.revision}: {lost}; every document is looked at instead")
                self._begin_again(run, majority_moment(self.databases), why="oplog")
            except CollectionGone:
                self._wait_for_collection(run)

    def _follow(self, run: Run) -> None:
        shape, place = self.change.shape, run.job.checkpoint
        if place.get("passage") not in self._begun():
            return  # not begun yet; what an earlier start left is none of ours
        if place.get("away"):
            raise CollectionGone
        with open_feed(self.databases, shape, token=place.get("token"), start=place["start"]) as feed:
            reconciler = Reconciler(
                databases=self.databases,
                revision=self.change.revision,
                shape=shape,
                run=run,
                feed=feed,
                actor=self.actor,
                stance=self.stance,
            )
            if place.get("unseen"):
                self._sweep(reconciler, keep=None)
                reconciler.place |= {"unseen": False}
            while not self.should_stop():
                self.on_step()
                self._settle(reconciler)
                self._forget_old(reconciler)
                if not reconciler.step():
                    self.clock.sleep(IDLE)

    def _begun(self) -> set[ObjectId]:
        """Return the events with which the change was begun since it was applied or rolled back last."""
        begun: set[ObjectId] = set()
        for event in History(self.databases).events():
            if event["revision"] != self.change.revision:
                continue
            if event["event"] in (Mark.APPLIED, Mark.REVERTED):
                begun.clear()
            elif event["event"] == Mark.STARTED:
                begun.add(event["_id"])
        return begun

    def stance(self) -> Stance:
        """Return what the history says is being done; asked again after a moment.

        Raises:
            Over: When the change is.
        """
        now = self.clock.now()
        if self._asked_at is None or now - self._asked_at >= ASK_EVERY:
            with driver_errors():
                last = self.databases.compliance[HISTORY].find_one(
                    {"revision": self.change.revision, "event": {"$in": list(Mark)}},
                    sort=[("fence", DESCENDING), ("_id", DESCENDING)],
                )
            stance = STANCES.get(Mark(last["event"])) if last else None
            if stance is None:
                raise Over
            self._stance, self._asked_at = stance, now
        return self._stance

    def _sweep(self, reconciler: Reconciler, *, keep: Side | None) -> None:
        """Settle every document that disagrees; *keep* says nothing of a document that has one shape alone."""
        shape, place = self.change.shape, dict[str, Any]()
        while found := page_of_disagreeing(self.databases, shape, place):
            in_doubt = [document["_id"] for document in found if len(sides_in(document, shape)) > 1]
            one_sided = [document["_id"] for document in found if len(sides_in(document, shape)) == 1]
            reconciler.settle(in_doubt, keep)
            reconciler.settle(one_sided, None)
            place = {"last": found[-1]["_id"]}

    def _wait_for_collection(self, run: Run) -> None:
        """Wait until the collection is back, then begin again behind its return."""
        shape = self.change.shape
        self.told(
            f"{self.change.revision}: {shape.collection} was dropped or renamed; once it is back, every document is "
            "looked at"
        )
        away = {**checkpoint_of(self.databases, self.change.revision), "away": True}
        run.commit(lambda _: Outcome(checkpoint=away))
        while not is_there(self.databases, shape):
            run.check()
            self.stance()
            self.on_step()
            self.clock.sleep(ASK_EVERY)
        self._begin_again(run, next_moment(self.databases, self.change.revision), why="collection")

    def _begin_again(self, run: Run, start: Timestamp, *, why: str) -> None:
        """Go on from *start*; what was written before is found by looking at every document.

        Args:
            run: The lease.
            start: A moment up to which everything is committed at majority.
            why: What was lost: the ``oplog`` or the ``collection``.
        """
        left = checkpoint_of(self.databases, self.change.revision)
        lost = left.get("lost", 0) + 1
        place = {**left, "token": None, "start": start, "lost": lost, "unseen": True, "away": False}
        details = {"collection": self.change.shape.collection, "lost": lost, "why": why}
        entry = self._entry("migration.history_lost", run, details)
        run.commit(lambda _: Outcome(entries=(entry,), checkpoint=place))

    def _settle(self, reconciler: Reconciler) -> None:
        """Do what a person asked for, once; looked for once a second."""
        now = self.clock.now()
        if self._settled_at is not None and now - self._settled_at < PAUSE:
            return
        self._settled_at = now
        with driver_errors():
            asked = self.databases.compliance[CONTROL].find_one({"_id": settle_id(self.change.revision)})
        if asked is None or reconciler.place.get("settled") == asked["request"]:
            return
        self._sweep(reconciler, keep=Side(asked["keep"]))
        reconciler.place |= {"settled": asked["request"]}
        details = {"collection": self.change.shape.collection, "keep": asked["keep"]}
        entry = self._entry("migration.settled", reconciler.run, details)
        reconciler.run.commit(lambda _: Outcome(entries=(entry,), checkpoint=reconciler.place))

    def _forget_old(self, reconciler: Reconciler) -> None:
        """Keep what says which writes are ours from growing: what is behind the place is never read again."""
        now = self.clock.now()
        if self._forgot_at is None or now - self._forgot_at >= FORGET_EVERY:
            self._forgot_at = now
            own.forget(self.databases, self.change.revision, before=reconciler.place["upto"].as_datetime())

    def _entry(self, action: str, run: Run, details: Mapping[str, Detail]) -> Entry:
        return Entry(
            event=f"{self.change.revision}#{action}#{run.job.fence}#{ObjectId()}",
            entity_type="migration",
            entity_id=self.change.revision,
            action=action,
            created_at=self.clock.now(),
            performed_by=self.actor,
            details=dict(details),
        )


def ask_to_settle(databases: Databases, revision: str, *, keep: Side, by: str, clock: Clock) -> ObjectId:
    """Ask whoever keeps *revision* in step to go by the shape *keep* where nobody knows which was written last.

    Raises:
        StoreUnavailable: When MongoDB does not answer, as ``persist`` says.
    """
    request = ObjectId()  # the same in every attempt: what was settled once is not settled again
    asked = {"request": request, "keep": keep.value, "by": by, "at": clock.now()}

    def ask() -> None:
        with driver_errors():
            databases.compliance[CONTROL].update_one({"_id": settle_id(revision)}, {"$set": asked}, upsert=True)

    persist(ask, clock=clock, report=_unheard)
    return request


def wait_until_settled(databases: Databases, revision: str, request: ObjectId, *, clock: Clock) -> None:
    """Return once *request* was carried out.

    Raises:
        ShapesDisagree: When nobody does.
        StoreUnavailable: When MongoDB does not answer, as ``persist`` says.
    """
    waited = timedelta()
    while persist(lambda: checkpoint_of(databases, revision), clock=clock, report=_unheard).get("settled") != request:
        if waited >= SETTLE_LIMIT:
            raise ShapesDisagree(f"nobody settles {revision}: {START_IT}")
        clock.sleep(ASK_EVERY)
        waited += ASK_EVERY


def _unheard(line: str) -> None:
    del line  # whoever keeps the shapes in step says the same


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    """Keep a change in step in a thread for the block, unless another process does."""
    ended = threading.Event()
    stopping = replace(follower, should_stop=lambda: ended.is_set() or follower.should_stop())
    thread = threading.Thread(target=stopping.run, name=f"reconcile-{follower.change.revision}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _try(deed: Callable[[], None], told: Callable[[str], None]) -> None:
    try:
        deed()
    except (ComplianceError, PyMongoError) as error:
        told(str(translate(error) if isinstance(error, PyMongoError) else error))


def follow_all(
    databases: Databases,
    *,
    clock: Clock,
    actor: str,
    length: timedelta,
    should_stop: Callable[[], bool],
    told: Callable[[str], None],
    on_look: Callable[[], None] = lambda: None,
    beside: Callable[[], None] = lambda: None,
) -> None:
    """Keep every open change in step, each in a thread, until asked to stop; *beside* is called every second or so."""
    threads: dict[str, threading.Thread] = {}
    try:
        while not should_stop():
            _try(beside, told)
            try:
                changes = open_changes(databases)
            except (ComplianceError, PyMongoError) as error:
                told(str(translate(error) if isinstance(error, PyMongoError) else error))
                changes = []
            else:
                on_look()
            for change in changes:
                if change.revision not in threads or not threads[change.revision].is_alive():
                    follower = Follower(
                        databases=databases,
                        change=change,
                        clock=clock,
                        actor=actor,
                        length=length,
                        should_stop=should_stop,
                        told=told,
                    )
                    thread = threading.Thread(target=follower.run, name=f"reconcile-{change.revision}", daemon=True)
                    thread.start()
                    threads[change.revision] = thread
            clock.sleep(PAUSE)
    finally:
        for thread in threads.values():
            thread.join()
