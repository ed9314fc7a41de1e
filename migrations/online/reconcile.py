"""Keep both shapes of a collection in step: follow what applications write, and write the other shape.

One batch is one transaction: the fence, the documents, our own mark (``migrations.online.own``), the audit entry and
the place in the change stream. Within it, the documents are written first, which keeps applications from writing them;
then everything up to that moment is read from the stream, and where that changes what is to be done, the document is
written again. So no write of an application is ever overwritten that was not seen. A batch that is read again after a
crash finds its own marks, and does nothing twice.

Document shape (``checkpoint`` of the lease ``reconcile <revision>``)::

    {passage: ObjectId, start: timestamp, token: object | null, upto: timestamp, leaving: str | null, filling: bool,
     writes: int, lost: int, unseen: bool, away: bool, settled: ObjectId, before: str}
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import bson
from bson import Timestamp
from pymongo import UpdateOne

from compliance.audit.entry import Entry
from compliance.errors import DuplicateEntry, StoreUnavailable
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Document, Session
from migrations.online.events import Stance, Written, decide, written_by
from migrations.online.feed import Feed, Token, next_moment
from migrations.online.own import OwnWrites, key_of, record
from migrations.online.shape import Pipeline, Shape, Side, clear
from migrations.ops.aside import FOLLOWED, add_followed, followed, settle_followed
from migrations.ops.faults import DocumentRefused, refusals

LARGEST_BATCH = 200
MOST_EVENTS = 500
MOST_PENDING = 2000
READ_FOR = timedelta(milliseconds=20)  # where events never end, there is still something to be done about them
SAVE_EVERY = timedelta(milliseconds=500)  # so long waits, at the least, who waits for a place
PATIENCE = timedelta(seconds=10)  # for the stream to come to the moment of a snapshot: more than a majority takes


@dataclass(slots=True)
class Trail:
    """What applications wrote to one document since its shapes agreed.

    Attributes:
        writes: Those, oldest first.
        places: Where the stream was before each of them.
    """

    writes: list[Written] = field(default_factory=list)
    places: list[Token | None] = field(default_factory=list)

    def add(self, write: Written, before: Token | None) -> None:
        """Add a write."""
        self.writes.append(write)
        self.places.append(before)

    def behind(self, number: int) -> "Trail":
        """Return what came behind the first *number* of them."""
        return Trail(self.writes[number:], self.places[number:])


Seen = dict["Key", tuple[Trail, int]]


class Overtaken(Exception):
    """An application wrote one of several documents just before we did: with fewer of them it is less likely."""


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Follows one collection.

    Attributes:
        stance: Asked before each batch.
        pending: What is to be done, the oldest first.
        aside: What was set aside, and not brought into step since.
    """

    databases: Databases
    revision: str
    shape: Shape
    run: Run
    feed: Feed
    actor: str
    stance: Callable[[], Stance]
    own: OwnWrites = field(init=False)
    pending: "dict[Key, Trail]" = field(default_factory=dict, init=False)
    aside: "set[Key]" = field(init=False)
    place: dict[str, Any] = field(init=False)
    size: int = field(default=LARGEST_BATCH, init=False)
    commits: int = field(default=0, init=False)
    saved_at: datetime | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.own = OwnWrites(self.databases)
        self.place = dict(self.run.job.checkpoint)
        self.aside = {Key(id_) for id_ in followed(self.databases, self.revision)}

    def step(self) -> bool:
        """Read what there is, and bring one batch of documents into step; return whether there was anything to do."""
        self.run.check()
        stance = self.stance()
        self._read()
        if not self.pending:
            self._save(stance)
            return False
        ids = list(self.pending)[: self.size]
        try:
            self._write(ids, stance)
        except Overtaken:
            self.size = max(1, self.size // 2)
        except DocumentRefused as error:
            if len(ids) == 1:
                self._set_aside(ids[0], error, stance)
            self.size = max(1, len(ids) // 2)
        else:
            self.size = min(LARGEST_BATCH, self.size * 2)
        return True

    def settle(self, ids: Sequence[Any], keep: Side | None) -> None:
        """Bring documents into step of whose last write nothing is known.

        Args:
            ids: Which. What is written to one of them meanwhile counts more.
            keep: The shape to go by where a document has both; with None such a document is left as it is.
        """
        self._read()
        keys = [Key(id_) for id_ in ids]
        for key in keys:
            self.pending.setdefault(key, Trail([Written(keep.value) if keep else Written.UNKNOWN], [self.feed.token]))
        while not self.pending.keys().isdisjoint(keys):
            self.step()

    # Reading

    def _read(self) -> None:
        """Read what there is, but no more than a batch, and nothing while much is to be done."""
        if len(self.pending) < MOST_PENDING:
            self._take(MOST_EVENTS)

    def _read_upto(self, moment: Timestamp) -> None:
        """Read everything up to *moment*.

        Raises:
            StoreUnavailable: When the stream does not come so far.
        """
        began = self.run.clock.now()
        while not self._take(MOST_EVENTS, moment):
            if self.run.clock.now() - began > PATIENCE:
                raise StoreUnavailable("the change stream does not come to the present; a majority may be missing")

    def _take(self, most: int, moment: Timestamp | None = None) -> bool:
        """Read at most so many events, or for a moment; return whether everything up to *moment* was read."""
        events: list[tuple[Document, Token | None]] = []
        has_reached = False
        until = None if moment else self.run.clock.now() + READ_FOR
        while len(events) < most and not has_reached and (until is None or self.run.clock.now() < until):
            before = self.feed.token
            event = self.feed.next()
            if event is None:
                has_reached = moment is not None and self.feed.has_reached(moment)
                break
            events.append((event, before))
            has_reached = moment is not None and event["clusterTime"] > moment
        self._note(events)
        return has_reached

    def _note(self, events: Sequence[tuple[Document, Token | None]]) -> None:
        ours = self.own.ours(key for event, _ in events if (key := key_of(event)) is not None)
        for event, before in events:
            id_ = Key(event["documentKey"]["_id"])
            if event["operationType"] == "delete" or key_of(event) in ours:
                self.pending.pop(id_, None)
                continue
            write = written_by(event, self.shape)
            if write is not None:
                self.pending.setdefault(id_, Trail()).add(write, before)

    # Writing

    def _write(self, ids: Sequence["Key"], stance: Stance) -> None:
        attempts = 0
        seen: Seen = {}
        settled: set[Key] = set()

        def effect(session: Session) -> Outcome:
            nonlocal attempts, seen, settled
            attempts += 1
            if attempts > 1 and len(ids) > 1:
                raise Overtaken
            seen = {id_: (trail, len(trail.writes)) for id_ in ids if (trail := self.pending.get(id_)) is not None}
            found = self._find(ids, session)
            plan = {id_: self._plan(id_, document, stance) for id_, document in found.items()}
            writes = self._apply(plan, session)
            self._read_upto(next_moment(self.databases, self.revision))
            now = {id_: self._plan(id_, document, stance) for id_, document in found.items()}
            newer = {id_: self._as_found(found[id_]) + now[id_] for id_ in found if now[id_] != plan[id_]}
            writes += self._apply(newer, session)
            if writes:
                record(self.databases, self.revision, at=self.run.clock.now(), session=session)
            settled = {id_ for id_ in self.aside.intersection(ids) if id_ not in found or now[id_]}
            self._settle_aside(settled, session)
            return Outcome(entries=self._entries(writes), checkpoint=self._place(stance, seen, writes=writes))

        if self._commit(effect):
            self._done(seen)
            self.aside -= settled

    def _settle_aside(self, ids: "Collection[Key]", session: Session) -> None:
        if ids:
            values = [id_.value for id_ in ids]
            settle_followed(self.databases, self.revision, values, at=self.run.clock.now(), session=session)

    def _done(self, seen: "Seen") -> None:
        """Forget what was settled; what came while it was, is looked at again: a document may have needed no write."""
        for id_, (trail, number) in seen.items():
            now = self.pending.get(id_)
            if now is trail:
                del self.pending[id_]
                if len(trail.writes) > number:
                    self.pending[id_] = trail.behind(number)

    def _commit(self, effect: Callable[[Session], Outcome]) -> bool:
        """Return whether it is known to have committed now, and is not an earlier attempt."""
        try:
            outcome = self.run.commit(effect)
        except DuplicateEntry:  # under our fence: an attempt committed, and its answer was lost
            self.commits += 1
            return False
        self.commits += 1
        self.place, self.saved_at = dict(outcome.checkpoint or {}), self.run.clock.now()
        return True

    def _find(self, ids: Sequence["Key"], session: Session) -> "dict[Key, Document]":
        """Return the documents that are there; one that was deleted never comes back by us."""
        fields = dict.fromkeys((*self.shape.old, *self.shape.new), 1)
        query = {"_id": {"$in": [id_.value for id_ in ids]}}
        found = self.databases.app[self.shape.collection].find(query, fields, session=session)
        return {Key(document["_id"]): document for document in found}

    def _apply(self, plan: "Mapping[Key, Pipeline]", session: Session) -> int:
        updates = [UpdateOne({"_id": {"$eq": id_.value}}, pipeline) for id_, pipeline in plan.items() if pipeline]
        if not updates:
            return 0
        with refusals():
            return self.databases.app[self.shape.collection].bulk_write(updates, session=session).modified_count

    def _as_found(self, document: Document) -> Pipeline:
        """Return what gives *document* the shapes that it had when the transaction began."""
        fields = (*self.shape.old, *self.shape.new)
        return assign({name: document[name] for name in fields if name in document}, fields)

    def _plan(self, id_: "Key", document: Document, stance: Stance) -> Pipeline:
        """Return what brings *document* into step; nothing where that is not known, or not to be done."""
        trail = self.pending.get(id_)
        if trail is None:
            return []
        return decide(trail.writes[-1], document, self.shape, stance)

    def _set_aside(self, id_: "Key", error: DocumentRefused, stance: Stance) -> None:
        described = {
            "revision": self.revision,
            "passage": self.place["passage"],
            "step": FOLLOWED,
            "digest": "",
            "collection": self.shape.collection,
            "document_id": id_.value,
            "code": error.code,
            "reason": error.reason,
            "at": self.run.clock.now(),
        }

        def effect(session: Session) -> Outcome:
            add_followed(self.databases, described, session=session)
            return Outcome(checkpoint=self._place(stance, seen))

        seen = {id_: (self.pending[id_], len(self.pending[id_].writes))}
        if self._commit(effect):
            self._done(seen)
            self.aside.add(id_)

    # Where it stands

    def _place(self, stance: Stance, seen: "Seen | None" = None, *, writes: int = 0) -> dict[str, Any]:
        """Return the place once *seen* is done: before the first write that is not, or behind everything."""
        left = (
            trail.places[number:]
            for id_, trail in self.pending.items()
            for number in [seen[id_][1] if seen and id_ in seen and seen[id_][0] is trail else 0]
        )
        token = min((places[0] for places in left if places), key=_order, default=self.feed.token)
        return {
            **self.place,
            "token": dict(token) if token else None,
            "upto": self.feed.moment_of(token),
            "leaving": stance.leaving.value if stance.leaving else None,
            "filling": stance.is_filling,
            "writes": self.place.get("writes", 0) + writes,
        }

    def _save(self, stance: Stance) -> None:
        """Save the place when idle, too: a token that stands still falls off the end of the oplog."""
        now = self.run.clock.now()
        if self.saved_at is None or now - self.saved_at >= SAVE_EVERY:
            place = self._place(stance)
            self.run.commit(lambda _: Outcome(checkpoint=place))
            self.place, self.saved_at = place, now

    def _entries(self, writes: int) -> tuple[Entry, ...]:
        if not writes:
            return ()
        entry = Entry(
            event=f"{self.revision}#reconcile#{self.run.job.fence}#{self.commits + 1}",
            entity_type="migration",
            entity_id=self.revision,
            action="migration.reconciled",
            created_at=self.run.clock.now(),
            performed_by=self.actor,
            details={"collection": self.shape.collection, "writes": writes},
        )
        return (entry,)


def assign(values: Mapping[str, Any], fields: Iterable[str]) -> Pipeline:
    """Return the pipeline after which a document has *values*, and no other of *fields*."""
    gone = [name for name in fields if name not in values]
    literal: Pipeline = [{"$set": {name: {"$literal": value} for name, value in values.items()}}] if values else []
    return literal + (clear(gone) if gone else [])


def _order(token: Token | None) -> str:
    return "" if token is None else str(token["_data"])


class Key:
    """An ``_id`` of any type, to look it up by."""

    __slots__ = ("_code", "value")

    def __init__(self, value: Any) -> None:
        self.value, self._code = value, bson.encode({"": value})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._code == other._code

    def __hash__(self) -> int:
        return hash(self._code)
