"""The sealer: entries become leaves of a Merkle tree in the order in which they were committed, and its root is signed.

It seals what the change stream brought, not what the collection holds: an entry that was altered or removed before it
was sealed is sealed as it was written, and found out afterwards. What it keeps is inserted once and never changed.

Several sealers may run. The next batch has one place, so one of them wins; the others compare it with what they read
themselves, and go on behind it. Nobody signs a tree that it has not followed from one that was signed before.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING

from compliance.audit.arrivals import Arrival, Streams, Unreadable, find_faults, read_arrival, shown
from compliance.audit.batch import MAX_LEAVES, Batch
from compliance.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from compliance.audit.entry import Entry
from compliance.audit.guard import Guard, Mark
from compliance.audit.keys import SigningKey
from compliance.audit.log import LENIENT, AuditLog
from compliance.audit.merkle import EMPTY_ROOT, Frontier
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.stored import RAW
from compliance.audit.tiles import Edge, read_edge
from compliance.audit.trust import Trust, yearly
from compliance.audit.writer import log_name
from compliance.clock import Clock
from compliance.errors import IntegrityError, InvalidProof, MalformedProof
from compliance.mongo import Databases, Session, driver_errors
from compliance.roles import AUDIT_LOG

_ADDRESS = re.compile(rb"[^\s@\"]@[^\s@\"]+\.[A-Za-z]{2,}")

Report = Callable[[str, str], None]
"""Told the kind of an incident, and a sentence about it with ids only."""

GRACE = timedelta(hours=1)  # how long the log of a past year stays open for writers whose clocks are late
PATIENCE = timedelta(minutes=1)  # how long another sealer's batch may hold entries that the stream has not brought
RECOVERING = ""  # the token of batches that a recovery seals before it has come to its end


@dataclass(frozen=True, slots=True)
class Leaf:
    """An entry on its way into the log."""

    id: str
    hash: bytes


@dataclass(slots=True)
class Tip:
    """The end of the log of one year.

    Attributes:
        frontier: The tree so far, authenticated.
        edge: The same, for its tiles.
        signed: The size that was signed last.
        pending: What comes next.
        opened: The size at which this sealer began to know every stream that comes.
        is_closed: Whether the year is over and its log takes no more entries.
        puzzled_since: Since when another sealer's batch holds more than the stream has brought.
    """

    frontier: Frontier = field(default_factory=Frontier)
    edge: Edge = field(default_factory=Edge)
    signed: int = 0
    pending: list[Leaf] = field(default_factory=list)
    opened: int = 0
    is_closed: bool = False
    puzzled_since: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Sealer:
    """Seals the logs of one application; one thread uses it.

    Attributes:
        report: Told of entries that are not sealed, and of a log that is not as it was left.
    """

    databases: Databases
    trust: Trust
    key: SigningKey
    clock: Clock
    guard: Guard
    report: Report
    _tips: dict[str, Tip] = field(default_factory=dict, init=False)
    _marks: dict[str, Mark] = field(default_factory=dict, init=False)
    _token: str | None = field(default=None, init=False)
    _arrived: list[Arrival] = field(default_factory=list, init=False)
    _streams: Streams = field(default_factory=Streams, init=False)

    @property
    def seals(self) -> Seals:
        """What is sealed already."""
        return Seals(self.databases)

    @property
    def pending(self) -> int:
        """How many entries wait to be sealed."""
        return len(self._arrived) + sum(len(tip.pending) for tip in self._tips.values())

    def open(self) -> str | None:
        """Go to the end of what is signed; return the resume token behind it, None where `recover` has to come first.

        Raises:
            IntegrityError: When the log is not as it was left: nothing may be signed until a person has looked.
        """
        self._tips, self._arrived, self._streams = {}, [], Streams()
        self._marks = self.guard.marks()
        for log, mark in self._marks.items():
            last = self.seals.last_batch(log)
            if last is None or last.end < mark.size:
                held = last.end if last else 0
                raise IntegrityError(
                    f"{log} holds {held} entries, and {mark.size} were signed: was a backup restored? Nothing more is "
                    "signed; docs/audit.md says what to do"
                )
        signed = {log: self._signed(log) for log in self.seals.logs()}
        self._token = self._resume_point({log: size for log, (size, _) in signed.items()})
        for log, (size, root) in signed.items():
            self._tips[log] = self._open_log(log, size, root)
        return self._token

    def recover(self, token: str, *, on_progress: Callable[[], None] = lambda: None) -> None:
        """Take up what is in the log and not sealed, in the order in which it was inserted.

        For a log that was never sealed, whose history the oplog has lost, or in which an earlier recovery was
        interrupted. What it seals says so until it has come to its end, so that the next sealer begins it again.

        Args:
            token: Where the change stream stood before; what it brings again from there is left out.
            on_progress: Told every now and then.
        """
        since = self._reached() if self._token is not None else None
        query = {"created_at": {"$gte": since - CLOCKS_APART}} if since is not None else {}
        sealed = self._sealed_ids(since)
        entries = self.databases.audit.with_options(codec_options=RAW)[AUDIT_LOG]
        self._token = RECOVERING
        with driver_errors():
            for raw in entries.find(query, sort={"$natural": ASCENDING}):
                self._arrive(raw)
                if len(self._arrived) >= MAX_LEAVES:
                    self._admit(sealed)
                    self.seal()
                    on_progress()
        self._admit(sealed)
        self._token = token
        self.seal()

    def take(self, raw: RawBSONDocument, token: str) -> None:
        """Take the entry of one change event, behind which the stream stands at *token*."""
        self._token = token
        self._arrive(raw)

    def seal(self) -> None:
        """Seal what is pending, and sign what is sealed; what another sealer has sealed first counts as well.

        Raises:
            IntegrityError: When somebody sealed something else.
        """
        now = self.clock.now()
        self._admit()
        if self.pending and not self._insert(now):
            for log, tip in self._tips.items():
                self._follow(log, tip, now)
        for log, tip in self._tips.items():
            if tip.frontier.size > tip.signed:
                self._sign(log, tip)

    def close_past(self) -> None:
        """Close the logs of past years, with an entry in the present one that says how they ended."""
        now = self.clock.now()
        present = log_name(self.trust.origin, now - GRACE)
        for log, tip in self._tips.items():
            if log >= present or tip.is_closed or tip.pending or tip.signed < tip.frontier.size:
                continue
            entry = _closing(log, tip.frontier, now)
            self.databases.transact(partial(self._record_once, entry))
            tip.is_closed = True

    def _record_once(self, entry: Entry, session: Session) -> None:
        log = AuditLog(self.databases)
        if not log.holds(entry, session=session):
            log.append(entry, session=session)

    def _signed(self, log: str) -> tuple[int, bytes]:
        """Return size and root hash of the last checkpoint, which our own key must have signed."""
        note = self.seals.checkpoints.note(log)
        if note is None:
            return 0, EMPTY_ROOT
        try:
            found = open_checkpoint(note, policy=self.trust.policy(log)).checkpoint
        except InvalidProof as error:
            raise IntegrityError(
                f"the last checkpoint of {log} is not ours ({error}); nothing more is signed"
            ) from None
        return found.size, found.root

    def _resume_point(self, signed: Mapping[str, int]) -> str | None:
        """Return the token from which the stream brings all that is not signed; None where no token does."""
        lasts = [batch for log in signed if (batch := self.seals.last_batch(log)) is not None]
        unsigned = [next(self.seals.batches(log, start=size), None) for log, size in signed.items()]
        behind = min((batch.token for batch in unsigned if batch is not None), default=None)
        newest = max(lasts, key=lambda batch: batch.sealed_at, default=None)
        if newest is None or RECOVERING in (newest.token, behind):
            return None
        ends = (self.seals.last_batch(log, before=behind) for log in signed)
        return max((batch.token for batch in ends if batch and batch.token != RECOVERING), default=None)

    def _open_log(self, log: str, size: int, root: bytes) -> Tip:
        """Return the end of *log* up to the resume token, once it is known to lead to what was signed.

        Where there is no such token, it is the end of what was signed.
        """
        batch = self.seals.last_batch(log, until=self._token) if self._token is not None else self._ending(log, size)
        tip = Tip(frontier=batch.frontier if batch else Frontier(), signed=size)
        tip.opened = tip.frontier.size
        followed = tip.frontier
        for later in self.seals.batches(log, start=followed.size):
            if followed.size >= size:
                break
            followed = followed.extended(later.leaves)
        if (followed.size, followed.root) != (size, root):
            raise IntegrityError(f"the batches of {log} do not lead to what was signed last; nothing more is signed")
        tip.edge = self._edge(log, tip.frontier)
        is_past = log < log_name(self.trust.origin, self.clock.now() - GRACE)
        tip.is_closed = is_past and AuditLog(self.databases).holds(_closing(log, tip.frontier, self.clock.now()))
        return tip

    def _ending(self, log: str, size: int) -> Batch | None:
        """Return the batch of *log* that ends at *size*."""
        batch = self.seals.batch_with(log, size - 1) if size else None
        return batch if batch is not None and batch.end == size else None

    def _edge(self, log: str, frontier: Frontier) -> Edge:
        """Return the right edge of the tree with *frontier*; an altered tile is reported, and stops nobody."""
        try:
            edge = read_edge(frontier.size, partial(self.seals.tile, log))
        except MalformedProof:
            edge = Edge()
        if edge.frontier == frontier:
            return edge
        edge = Edge()
        for batch in self.seals.batches(log):
            if batch.end <= frontier.size:
                edge, _ = edge.extended(batch.leaves)
        if edge.frontier != frontier:
            raise IntegrityError(f"the batches of {log} do not lead to what was signed last; nothing more is signed")
        self.report("MODIFIED", f"a tile of {log} is not made of its leaves; `compliance audit verify` names it")
        return edge

    def _arrive(self, raw: RawBSONDocument) -> None:
        try:
            self._arrived.append(read_arrival(raw))
        except Unreadable as found:
            self._refuse(found.id, found.fault)

    def _refuse(self, id_: object, fault: str) -> None:
        kind, _, why = fault.partition(" ")
        self.report(kind, f"entry {shown(id_)} is not sealed: {why}")

    def _admit(self, sealed: AbstractSet[str] | None = None) -> None:
        """Let what arrived wait for its seal, but for what must not be sealed, or is sealed already.

        Args:
            sealed: All ids that may come again, where they are known; else those in doubt are looked up.
        """
        admitted: dict[str, list[Arrival]] = {}
        for arrival, fault in zip(self._arrived, find_faults(self._arrived, self.trust), strict=True):
            why = fault or self._find_fault(arrival)
            if why is not None:
                self._refuse(arrival.id, why)
            else:
                admitted.setdefault(arrival.log, []).append(arrival)
        self._arrived = []
        for log, arrivals in admitted.items():
            tip = self._tips.setdefault(log, Tip())
            if sealed is None:
                fresh = list(self._unsealed(log, tip, arrivals))
            else:
                fresh = [arrival for arrival in arrivals if arrival.id not in sealed]
            for arrival in fresh:
                tip.pending.append(Leaf(arrival.id, arrival.hash))
                self._streams.add(arrival)
        if self._streams.forget():
            for tip in self._tips.values():
                tip.opened = tip.frontier.size + len(tip.pending)

    def _find_fault(self, arrival: Arrival) -> str | None:
        """Return why an entry must not be sealed: it would then look as if it had been in order."""
        if arrival.log != log_name(self.trust.origin, arrival.created_at):
            return "FORGED it names a log that is not that of its year"
        if arrival.log in self._tips and self._tips[arrival.log].is_closed:
            return "BACKDATED the log of its year is closed"
        if b"@" in arrival.leaf and _ADDRESS.search(arrival.leaf):
            return "PERSONAL-DATA it holds what looks like an e-mail address"
        return None

    def _unsealed(self, log: str, tip: Tip, arrivals: Sequence[Arrival]) -> Iterator[Arrival]:
        """Yield those of *arrivals* that neither are sealed nor wait for it already."""
        doubtful = self._streams.doubtful(arrivals)
        known: dict[str, bytes] = {}
        if doubtful:
            # What was sealed since the start came by here, so its stream is known.
            below = tip.frontier.size if any(map(self._streams.is_known, doubtful)) else tip.opened
            since = min(arrival.created_at for arrival in doubtful) - CLOCKS_APART
            known = {leaf.id: leaf.hash for leaf in tip.pending}
            known |= self._sealed(log, {arrival.id for arrival in doubtful}, since=since, below=below)
        for arrival in arrivals:
            if known.get(arrival.id) != arrival.hash:
                yield arrival
            if doubtful:
                known[arrival.id] = arrival.hash

    def _sealed(self, log: str, ids: AbstractSet[str], *, since: datetime, below: int) -> dict[str, bytes]:
        """Return the leaf hashes with which those of *ids* were sealed that were, as far as this sealer has come."""
        found: dict[str, bytes] = {}
        for batch in self.seals.sealed_since(log, since) if below else ():
            if batch.end <= below and not ids.isdisjoint(batch.ids):
                found |= {id_: leaf for id_, leaf in zip(batch.ids, batch.leaves, strict=True) if id_ in ids}
        return found

    def _insert(self, now: datetime) -> bool:
        """Insert all that is pending in one transaction; False when another sealer was first."""
        batches = {log: self._next(log, tip, now) for log, tip in self._tips.items() if tip.pending}
        grown = {log: self._tips[log].edge.extended(batch.leaves) for log, batch in batches.items()}

        def transaction(session: Session) -> None:
            for log, batch in batches.items():
                if not self.seals.add_batch(batch, grown[log][1], session=session):
                    raise _Overtaken

        try:
            self.databases.transact(transaction)
        except _Overtaken:
            return False
        for log, batch in batches.items():
            self._advance(log, self._tips[log], batch, grown[log][0])
        return True

    def _next(self, log: str, tip: Tip, now: datetime) -> Batch:
        if self._token is None:
            raise RuntimeError("nothing can be sealed before the change stream has a token")
        leaves = [leaf.hash for leaf in tip.pending]
        return Batch(
            log=log,
            ids=tuple(leaf.id for leaf in tip.pending),
            leaves=tuple(leaves),
            frontier=tip.frontier.extended(leaves),
            sealed_at=now,
            token=self._token,
        )

    def _follow(self, log: str, tip: Tip, now: datetime) -> None:
        """Go on behind what another sealer sealed, as far as it is what the stream brought here."""
        for batch in self.seals.batches(log, start=tip.frontier.size):
            here = tip.pending[: len(batch.leaves)]
            if batch.start != tip.frontier.size or batch.leaves[: len(here)] != tuple(leaf.hash for leaf in here):
                raise IntegrityError(f"a batch of {log} at {batch.start} is not what the change stream brought")
            if len(here) < len(batch.leaves):
                tip.puzzled_since = tip.puzzled_since or now
                if now - tip.puzzled_since > PATIENCE:
                    raise IntegrityError(f"a batch of {log} at {batch.start} holds entries that nobody wrote")
                return
            if tip.frontier.extended(batch.leaves) != batch.frontier:
                raise IntegrityError(f"a batch of {log} at {batch.start} does not lead to its own frontier")
            self._advance(log, tip, batch, tip.edge.extended(batch.leaves)[0])

    def _advance(self, log: str, tip: Tip, batch: Batch, edge: Edge) -> None:
        """Move on behind *batch*, to *edge*; it must lead through what was signed before, also by a lost state."""
        mark = self._marks.get(log)
        if mark is not None and tip.frontier.size < mark.size <= batch.end:
            passed = tip.frontier.extended(batch.leaves[: mark.size - batch.start])
            if passed.root != mark.root:
                raise IntegrityError(f"{log} is another one than was signed up to {mark.size}; nothing more is signed")
        tip.frontier = batch.frontier
        tip.edge = edge
        tip.pending = tip.pending[len(batch.leaves) :]
        tip.puzzled_since = None

    def _sign(self, log: str, tip: Tip) -> None:
        size, root = tip.frontier.size, tip.frontier.root
        mark = self._marks.get(log)
        if mark is not None and size < mark.size:
            return  # what was signed up to the mark is read again first
        note = sign_checkpoint(Checkpoint(origin=log, size=size, root=root), [yearly(self.key, log)])
        self._marks[log] = Mark(size, root)
        self.guard.keep(self._marks)
        if not self.seals.checkpoints.add(log, size, note):
            self._compare(log, size, root)
        tip.signed = size

    def _compare(self, log: str, size: int, root: bytes) -> None:
        """Return if the checkpoint that another sealer signed for *size* says the same."""
        note = self.seals.checkpoints.note(log, size)
        try:
            found = open_checkpoint(note or b"", policy=self.trust.policy(log)).checkpoint
        except InvalidProof:
            raise IntegrityError(f"the checkpoint of {log} at {size} is not ours; nothing more is signed") from None
        if found.root != root:
            raise IntegrityError(f"two trees of {log} were signed at {size}; nothing more is signed")

    def _reached(self) -> datetime | None:
        """Return up to which time entries are sealed; None where nobody can say."""
        found = (self.seals.last_batch(log, until=self._token) for log in self._tips)
        last = max((batch for batch in found if batch is not None), key=lambda batch: batch.sealed_at, default=None)
        if last is None:
            return None
        entries = self.databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
        with driver_errors():
            kept = entries.find({"_id": {"$in": list(last.ids)}}, {"created_at": 1}).to_list()
        times = [entry["created_at"] for entry in kept if isinstance(entry.get("created_at"), datetime)]
        return min(max(times), last.sealed_at) if times else None

    def _sealed_ids(self, since: datetime | None) -> set[str]:
        """Return the ids of entries that were sealed since a time, or ever, as far as this sealer has come."""
        return {
            id_
            for log, tip in self._tips.items()
            for batch in (
                self.seals.batches(log) if since is None else self.seals.sealed_since(log, since - 2 * CLOCKS_APART)
            )
            if batch.end <= tip.frontier.size
            for id_ in batch.ids
        }


class _Overtaken(Exception):
    """Another sealer inserted the next batch."""


def _closing(log: str, frontier: Frontier, now: datetime) -> Entry:
    return Entry(
        event=f"{log}#closed",
        entity_type="log",
        entity_id=log,
        action="log.closed",
        created_at=now,
        performed_by="sealer",
        details={"size": frontier.size, "root": frontier.root.hex()},
    )
