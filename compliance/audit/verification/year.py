"""The log of one year: its batches, its tree and its checkpoints."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bson import DatetimeMS

from compliance.audit.batch import Batch
from compliance.audit.checkpoint import Checkpoint, open_checkpoint
from compliance.audit.merkle import Frontier, read_frontier
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import Fault, Findings
from compliance.audit.verification.readers import Records
from compliance.audit.verification.streams import Streams
from compliance.audit.verification.tally import Tally
from compliance.audit.verification.unsealed import SEALED_WITHIN
from compliance.audit.wire import encode_base64
from compliance.errors import InvalidProof, MalformedProof

APART_MS = CLOCKS_APART // timedelta(milliseconds=1)


@dataclass(slots=True, kw_only=True)
class YearCheck:
    """Follows one log from its beginning, or from a checkpoint, to its end.

    Attributes:
        find_boundary: Asks below which index entries may be gone; the log may be pruned while it is verified.
        elsewhere: Checkpoints that were kept outside the database.
        frontier: The tree so far.
        note: The last checkpoint that verified.
        latest: The latest time that an entry so far has, in milliseconds.
    """

    seals: Seals
    trust: Trust
    log: str
    findings: Findings
    streams: Streams
    tally: Tally
    find_boundary: Callable[[], int] = lambda: 0
    elsewhere: list[Checkpoint] = field(default_factory=list)
    frontier: Frontier = field(default_factory=Frontier)
    entries: int = 0
    note: bytes | None = None
    signed: int = 0
    latest: int = 0
    _sealed_at: datetime | None = None
    _notes: Iterator[tuple[int, bytes]] = field(default_factory=lambda: iter(()))
    _next_note: tuple[int, bytes] | None = None
    _is_lost: bool = False
    _boundary: int = 0

    def begin(self, since: Checkpoint | None) -> None:
        """Begin behind *since*, whose tree must be the beginning of this one."""
        size = since.size if since is not None else 0
        self.signed = size
        if since is not None:
            self.frontier = self._frontier_at(size, size) or Frontier()
            if self.frontier.root != since.root:
                self._fork(since)
        for known in self.elsewhere:
            if known.size <= size and since is not None:
                found = self._frontier_at(known.size, size)
                if found is None or found.root != known.root:
                    self._fork(known)
        self._notes = self.seals.checkpoints(self.log, above=size)
        self._next_note = next(self._notes, None)

    def batches(self) -> Iterator[Batch]:
        """Yield what comes, as far as it hangs together."""
        yield from self.batches_behind(self.frontier.size)

    def excuse_pruned(self) -> None:
        """Tell the streams which of the entries that they miss were pruned.

        At the end, for what no kept entry follows need not be remembered: there may be millions.
        """
        befores = self.streams.befores() if self._boundary else set()
        for batch in self.batches_behind(0) if befores else ():
            if batch.start >= self._boundary:
                return
            for leaf in befores.intersection(map(encode_base64, batch.leaves)):
                self.streams.excuse(leaf)

    def batches_behind(self, start: int) -> Iterator[Batch]:
        """Yield the batches that begin at *start* or later, as far as they hang together."""
        found = self.seals.batches(self.log, start=start)
        while True:
            try:
                batch = next(found, None)
            except MalformedProof as error:
                self.findings.add(Fault.FORGED, f"a batch of {self.log}", str(error))
                return
            if batch is None:
                return
            yield batch

    def take(self, batch: Batch, records: Records) -> None:
        """Verify one batch; *records* holds its entries by id, those that are there."""
        if batch.start != self.frontier.size:
            self._lose(f"the batch at {batch.start} follows entry {self.frontier.size}", Fault.FORGED)
        is_intact = self._take_entries(batch, records)
        followed = self.frontier.extended(batch.leaves)
        self._compare_elsewhere(batch, followed)
        self.frontier = self._take_notes(batch, followed, is_intact=is_intact)
        self._sealed_at = batch.sealed_at

    def end(self, now: datetime) -> None:
        """Look at what must not be left over."""
        size = self.frontier.size
        while self._next_note is not None:
            self.findings.add(
                Fault.TRUNCATED, self.log, f"{self._next_note[0]} entries were signed, and {size} are in batches"
            )
            self._next_note = next(self._notes, None)
        for known in self.elsewhere:
            if known.size > size:
                self.findings.add(Fault.TRUNCATED, self.log, f"it had {known.size} entries, and {size} are left")
        is_late = self._sealed_at is not None and now - self._sealed_at > SEALED_WITHIN
        if self.signed < size and is_late and not self._is_lost:
            self.findings.add(Fault.UNSEALED, self.log, f"no checkpoint signs entries {self.signed} to {size - 1}")

    def _take_entries(self, batch: Batch, records: Records) -> bool:
        """Return whether every entry of *batch* that is there has the bytes that were sealed."""
        found = [id_ for id_ in batch.ids if id_ in records]
        if len(found) < len(batch.ids) and batch.end > self._boundary:
            self._boundary = self.find_boundary()
        is_intact, sealed_at = True, int(DatetimeMS(batch.sealed_at))
        for index, (id_, leaf) in enumerate(zip(batch.ids, batch.leaves, strict=True), batch.start):
            record = records.get(id_)
            if record is None:
                self._miss(id_, index, leaf)
                continue
            if record.leaf != leaf:
                is_intact = False
                self._say(Fault.MODIFIED, id_, index, "its bytes are not those that were sealed")
                self.streams.excuse(encode_base64(leaf))  # nothing that it says now is what was sealed
            elif record.stream is not None:
                self.streams.add(record.stream, record.seq, record.prev, encode_base64(leaf))
                self._take_time(id_, index, record.created_at, sealed_at)
        self.tally.add(found)
        self.entries += len(found)
        return is_intact

    def _miss(self, id_: str, index: int, leaf: bytes) -> None:
        if index >= self._boundary:
            self._say(Fault.MISSING, id_, index, "it was sealed and is gone")
            self.streams.excuse(encode_base64(leaf))

    def _take_time(self, id_: str, index: int, created_at: int, sealed_at: int) -> None:
        if created_at < self.latest - APART_MS:
            self._say(Fault.BACKDATED, id_, index, "entries that were sealed before it have a later time")
        elif created_at > sealed_at + APART_MS:
            self._say(Fault.BACKDATED, id_, index, "its time is later than that of its seal")
        elif created_at > self.latest:
            self.latest = created_at

    def _compare_elsewhere(self, batch: Batch, followed: Frontier) -> None:
        for known in self.elsewhere:
            if batch.start < known.size <= batch.end:
                found = followed if known.size == batch.end else self._within(batch, known.size)
                if found.root != known.root:
                    self._fork(known)

    def _take_notes(self, batch: Batch, followed: Frontier, *, is_intact: bool) -> Frontier:
        """Compare the checkpoints of *batch* with the tree; return the tree to go on from."""
        ahead = followed
        while self._next_note is not None and self._next_note[0] <= batch.end:
            size, note = self._next_note
            self._next_note = next(self._notes, None)
            try:
                signed = open_checkpoint(note, policy=self.trust.policy(self.log)).checkpoint
            except InvalidProof as error:
                self.findings.add(Fault.FORGED, f"checkpoint {size} of {self.log}", str(error))
                continue
            found = followed if size == batch.end else self._within(batch, size)
            if signed.size == size and signed.root == found.root:
                self.signed, self.note, self._is_lost = size, note, False
                if size == batch.end and batch.frontier != followed:
                    self.findings.add(
                        Fault.FORGED, f"batch {batch.start} of {self.log}", "its frontier is not that of its leaves"
                    )
                continue
            fault = Fault.REORDERED if is_intact else Fault.FORGED
            self._lose(f"entries {batch.start} to {batch.end - 1} do not lead to what was signed", fault)
            if signed.root == batch.frontier.root:
                ahead, self.signed, self._is_lost = batch.frontier, size, False
        return ahead

    def _within(self, batch: Batch, size: int) -> Frontier:
        return self.frontier.extended(batch.leaves[: size - batch.start])

    def _lose(self, why: str, fault: Fault) -> None:
        """Say once that the tree is not the one that was signed, until it is again."""
        if not self._is_lost:
            self.findings.add(fault, self.log, why)
        self._is_lost = True

    def _frontier_at(self, size: int, known: int) -> Frontier | None:
        try:
            return read_frontier(size, self.seals.nodes(self.log, known))
        except (MalformedProof, ValueError):
            return None

    def _fork(self, known: Checkpoint) -> None:
        self.findings.add(
            Fault.FORK, self.log, f"its first {known.size} entries are not those of the checkpoint that was given"
        )

    def _say(self, fault: Fault, id_: str, index: int, why: str) -> None:
        self.findings.add(fault, f"entry {id_} ({self.log} {index})", why)
