"""The sealer: entries become leaves of a Merkle tree in the order in which they were committed, and its root is signed.

It seals what the change stream brought, not what the collection holds: an entry that was altered or removed before it
was sealed is sealed as it was written, and found out afterwards. What it keeps is inserted once and never changed.

Several sealers may run. The next batch has one place, so one of them wins; the others compare it with what they read
themselves, and go on behind it. Nobody signs a tree that it has not followed from one that was signed before.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pymongo import ASCENDING

from compliance.audit.batch import MAX_LEAVES, Batch, from_document
from compliance.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from compliance.audit.entry import Entry
from compliance.audit.guard import Guard, Mark
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import stored_bytes
from compliance.audit.log import AuditLog
from compliance.audit.merkle import EMPTY_ROOT, Frontier, leaf_hash
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.signed import find_fault
from compliance.audit.tiles import Edge, read_edge
from compliance.audit.trust import Trust, yearly
from compliance.audit.writer import log_name
from compliance.clock import Clock
from compliance.errors import IntegrityError, InvalidProof, MalformedProof
from compliance.mongo import Databases, Session, driver_errors
from compliance.roles import AUDIT_LOG, BATCHES

_ADDRESS = re.compile(rb"[^\s@\"]@[^\s@\"]+\.[A-Za-z]{2,}")
_ID = re.compile(r"[0-9a-f]{32}")

Report = Callable[[str, str], None]
"""Told the kind of an incident, and a sentence about it with ids only."""

GRACE = timedelta(hours=1)  # how long the log of a past year stays open for writers whose clocks are late
PATIENCE = timedelta(minutes=1)  # how long another sealer's batch may hold entries that the stream has not brought


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
        is_closed: Whether the year is over and its log takes no more entries.
        puzzled_since: Since when another sealer's batch holds more than the stream has brought.
    """

    frontier: Frontier = field(default_factory=Frontier)
    edge: Edge = field(default_factory=Edge)
    signed: int = 0
    pending: list[Leaf] = field(default_factory=list)
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
    _known: frozenset[str] = field(default=frozenset(), init=False)

    @property
    def seals(self) -> Seals:
        """What is sealed already."""
        return Seals(self.databases)

    @property
    def pending(self) -> int:
        """How many entries wait to be sealed."""
        return sum(len(tip.pending) for tip in self._tips.values())

    def open(self) -> str | None:
        """Go to the end of what is signed; return the resume token behind it, None where nothing is sealed yet.

        Raises:
            IntegrityError: When the log is not as it was left: nothing may be signed until a person has looked.
        """
        self._tips, self._known = {}, frozenset()
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
        first_unsigned = (next(self.seals.batches(log, start=size), None) for log, (size, _) in signed.items())
        behind = min((batch.token for batch in first_unsigned if batch is not None), default=None)
        ends = (self.seals.last_batch(log, before=behind) for log in signed)
        self._token = max((batch.token for batch in ends if batch is not None), default=None)
        for log, (size, root) in signed.items():
            self._tips[log] = self._open_log(log, size, root)
        return self._token

    def recover(self, token: str) -> None:
        """Take up what is in the log and not sealed, in the order in which it was inserted.

        For a log that was never sealed, or whose history the oplog has lost.

        Args:
            token: Where the change stream stood before; what it brings again from there is left out once.
        """
        since = self._last_sealed()
        query = {"created_at": {"$gte": since - CLOCKS_APART}} if since is not None else {}
        sealed = set() if since is None else self._sealed_ids(since - 2 * CLOCKS_APART)
        scanned = set()
        self._token = token
        with driver_errors():
            for document in self.databases.audit[AUDIT_LOG].find(query, sort={"$natural": ASCENDING}):
                scanned.add(document["_id"])
                if document["_id"] not in sealed:
                    self._admit(document)
                if self.pending >= MAX_LEAVES:
                    self.seal()
        self._known = frozenset(scanned)

    def take(self, document: Mapping[str, Any], token: str) -> None:
        """Take the entry of one change event, behind which the stream stands at *token*."""
        self._token = token
        if document.get("_id") not in self._known:
            self._admit(document)

    def seal(self) -> None:
        """Seal what is pending, and sign what is sealed; what another sealer has sealed first counts as well.

        Raises:
            IntegrityError: When somebody sealed something else.
        """
        now = self.clock.now()
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
            if tip.is_closed or tip.pending or log >= present or tip.signed < tip.frontier.size:
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
        note = self.seals.checkpoint(log)
        if note is None:
            return 0, EMPTY_ROOT
        try:
            found = open_checkpoint(note, policy=self.trust.policy(log)).checkpoint
        except InvalidProof as error:
            raise IntegrityError(
                f"the last checkpoint of {log} is not ours ({error}); nothing more is signed"
            ) from None
        return found.size, found.root

    def _open_log(self, log: str, size: int, root: bytes) -> Tip:
        """Return the end of *log* up to the resume token, once it is known to lead to what was signed."""
        batch = self.seals.last_batch(log, until=self._token) if self._token is not None else None
        tip = Tip(frontier=batch.frontier if batch else Frontier(), signed=size)
        followed = tip.frontier
        for later in self.seals.batches(log, start=followed.size):
            if followed.size >= size:
                break
            followed = followed.extended(later.leaves)
        tip.edge = self._read_edge(log, tip.frontier)
        if (followed.size, followed.root) != (size, root) or tip.edge.frontier != tip.frontier:
            raise IntegrityError(f"the batches of {log} do not lead to what was signed last; nothing more is signed")
        tip.is_closed = AuditLog(self.databases).holds(_closing(log, tip.frontier, self.clock.now()))
        return tip

    def _read_edge(self, log: str, frontier: Frontier) -> Edge:
        try:
            return read_edge(frontier.size, partial(self.seals.tile, log))
        except MalformedProof as error:
            raise IntegrityError(f"the tiles of {log} cannot be read ({error}); nothing more is signed") from None

    def _admit(self, document: Mapping[str, Any]) -> None:
        fault, leaf = find_fault(document, self.trust), b""
        if fault is None:
            leaf = stored_bytes(document)
            fault = self._fault(document, leaf)
        if fault is not None:
            kind, _, why = fault.partition(" ")
            self.report(kind, f"entry {_shown(document.get('_id'))} is not sealed: {why}")
            return
        tip = self._tips.setdefault(document["log"], Tip())
        tip.pending.append(Leaf(document["_id"], leaf_hash(leaf)))

    def _fault(self, document: Mapping[str, Any], leaf: bytes) -> str | None:
        """Return why an entry must not be sealed: it would then look as if it had been in order."""
        log = document["log"]
        if log != log_name(self.trust.origin, document["created_at"]):
            return "FORGED it names a log that is not that of its year"
        if log in self._tips and self._tips[log].is_closed:
            return "BACKDATED the log of its year is closed"
        if _ADDRESS.search(leaf):
            return "PERSONAL-DATA it holds what looks like an e-mail address"
        return None

    def _insert(self, now: datetime) -> bool:
        """Insert all that is pending in one transaction; False when another sealer was first."""
        batches = {log: self._next(log, tip, now) for log, tip in self._tips.items() if tip.pending}

        tiles = {log: self._tips[log].edge.extended(batch.leaves)[1] for log, batch in batches.items()}

        def transaction(session: Session) -> None:
            for log, batch in batches.items():
                if not self.seals.add_batch(batch, tiles[log], session=session):
                    raise _Overtaken

        try:
            self.databases.transact(transaction)
        except _Overtaken:
            return False
        for log, batch in batches.items():
            self._advance(log, self._tips[log], batch)
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
            self._advance(log, tip, batch)

    def _advance(self, log: str, tip: Tip, batch: Batch) -> None:
        """Move on behind *batch*; its tree must lead through what was signed before, also by a lost state."""
        mark = self._marks.get(log)
        if mark is not None and tip.frontier.size < mark.size <= batch.end:
            passed = tip.frontier.extended(batch.leaves[: mark.size - batch.start])
            if passed.root != mark.root:
                raise IntegrityError(f"{log} is another one than was signed up to {mark.size}; nothing more is signed")
        tip.frontier = batch.frontier
        tip.edge, _ = tip.edge.extended(batch.leaves)
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
        if not self.seals.add_checkpoint(log, size, note):
            self._compare(log, size, root)
        tip.signed = size

    def _compare(self, log: str, size: int, root: bytes) -> None:
        """Return if the checkpoint that another sealer signed for *size* says the same."""
        note = self.seals.checkpoint(log, size)
        try:
            found = open_checkpoint(note or b"", policy=self.trust.policy(log)).checkpoint
        except InvalidProof:
            raise IntegrityError(f"the checkpoint of {log} at {size} is not ours; nothing more is signed") from None
        if found.root != root:
            raise IntegrityError(f"two trees of {log} were signed at {size}; nothing more is signed")

    def _last_sealed(self) -> datetime | None:
        found = (self.seals.last_batch(log) for log, tip in self._tips.items() if tip.frontier.size)
        return max((batch.sealed_at for batch in found if batch is not None), default=None)

    def _sealed_ids(self, since: datetime) -> set[str]:
        with driver_errors():
            found = self.databases.audit[BATCHES].find({"sealed_at": {"$gte": since}})
            batches = [from_document(document) for document in found]
        return {id_ for batch in batches if batch.end <= self._tips[batch.log].frontier.size for id_ in batch.ids}


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


def _shown(id_: object) -> str:
    """What a report may say of an id that a stranger may have written."""
    return id_ if isinstance(id_, str) and _ID.fullmatch(id_) else "of another shape"
