"""The log of one year: its batches, its tree and its checkpoints."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from compliance.audit.batch import Batch
from compliance.audit.checkpoint import Checkpoint, open_checkpoint
from compliance.audit.merkle import Frontier, read_frontier
from compliance.audit.seals import Seals
from compliance.audit.tiles import read_edge
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import Fault, Findings
from compliance.audit.verification.readers import UNREADABLE, Record, Records
from compliance.audit.verification.streams import Streams
from compliance.audit.verification.tally import Tally
from compliance.audit.verification.times import Times, milliseconds
from compliance.audit.verification.tree import StoredTiles, Tree, tree_of
from compliance.errors import InvalidProof, MalformedProof, UnknownName


@dataclass(slots=True, kw_only=True)
class YearCheck:
    """Follows one log from its beginning, or from a checkpoint, to its end.

    Attributes:
        now: The time by which something is late.
        find_boundary: Asks below which index entries may be gone; the log may be pruned while it is verified.
        elsewhere: Checkpoints that were kept outside the database.
        tree: The tree so far.
        note: The last checkpoint that verified.
        signed: The size that it covers.
        sealed_at: When the last batch that a checkpoint covers was sealed, as it says.
        boundary: The index below which entries may be gone, as far as that was asked.
        before: The batch before the first one that is verified, where its leaves are those that were signed.
    """

    seals: Seals
    trust: Trust
    log: str
    now: datetime
    findings: Findings
    streams: Streams
    tally: Tally
    find_boundary: Callable[[], int] = lambda: 0
    elsewhere: list[Checkpoint] = field(default_factory=list)
    tree: Tree = field(default_factory=Tree)
    entries: int = 0
    note: bytes | None = None
    signed: int = 0
    sealed_at: datetime | None = None
    boundary: int = 0
    before: Batch | None = None
    times: Times = field(init=False)
    _tiles: StoredTiles = field(init=False)
    _last_start: int = 0
    _notes: Iterator[tuple[int, bytes]] = field(default_factory=lambda: iter(()))
    _next_note: tuple[int, bytes] | None = None
    _is_lost: bool = False

    def __post_init__(self) -> None:
        self.times = Times(milliseconds(self.now))
        self._tiles = StoredTiles(seals=self.seals, log=self.log, findings=self.findings)

    @property
    def size(self) -> int:
        """How many entries the tree has so far."""
        return self.tree.frontier.size

    def begin(self, since: Checkpoint | None) -> None:
        """Begin behind *since*, whose tree must be the beginning of this one."""
        self._last_start, end = self.seals.extent(self.log)
        if since is not None and since.size > end:
            self.findings.add(Fault.TRUNCATED, self.log, f"it had {since.size} entries, and {end} are left")
        elif since is not None and since.size:
            self._begin_behind(since)
        self._notes = self.seals.checkpoints.above(self.log, self.size)
        self._next_note = next(self._notes, None)

    def recall(self, records: Records) -> None:
        """Take the times of the batch before, whose entries are *records*; nothing else of it is looked at again."""
        if self.before is None:
            return
        self.times.recall_seal(self.before.sealed_at)
        for id_, leaf in zip(self.before.ids, self.before.leaves, strict=True):
            found, *_, created_at = records.get(id_, UNREADABLE)
            if found == leaf:
                self.times.recall(created_at)

    def batches(self) -> Iterator[Batch]:
        """Yield what comes, as far as it hangs together."""
        yield from self.batches_behind(self.size)

    def excuse_pruned(self) -> None:
        """Tell the streams which of the entries that they miss were pruned.

        At the end, for what no kept entry follows need not be remembered: there may be millions.
        """
        befores = self.streams.befores() if self.boundary else set()
        for batch in self.batches_behind(0) if befores else ():
            if batch.start >= self.boundary:
                return
            for leaf in befores.intersection(batch.leaves):
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
        if batch.start != self.size:
            self._lose(f"the batch at {batch.start} follows entry {self.size}", Fault.FORGED)
        is_intact = self._take_entries(batch, records)
        followed, full = self.tree.extended(batch.leaves)
        self._tiles.compare(full)
        self._compare_elsewhere(batch, followed.frontier)
        self.tree = self._take_notes(batch, followed, is_intact=is_intact)

    def end(self) -> None:
        """Look at what must not be left over."""
        size = self.size
        while self._next_note is not None:
            self._say_beyond(*self._next_note)
            self._next_note = next(self._notes, None)
        for known in self.elsewhere:
            if known.size > size:
                self.findings.add(Fault.TRUNCATED, self.log, f"it had {known.size} entries, and {size} are left")
        if self.signed < size and self.times.is_late and not self._is_lost:
            self.findings.add(Fault.UNSEALED, self.log, f"no checkpoint signs entries {self.signed} to {size - 1}")

    def _say_beyond(self, size: int, note: bytes) -> None:
        """Say what a checkpoint means that covers more than is there."""
        try:
            open_checkpoint(note, policy=self.trust.policy(self.log))
        except InvalidProof as error:
            self.findings.add(Fault.FORGED, f"checkpoint {size} of {self.log}", str(error))
        else:
            why = f"{size} entries were signed, and {self.size} are in batches"
            self.findings.add(Fault.TRUNCATED, self.log, why)

    def _begin_behind(self, since: Checkpoint) -> None:
        """Go behind *since*, by the stored tiles where these lead to it, else by all leaves before it."""
        self.signed = since.size
        try:
            batch = self.seals.batch_with(self.log, since.size - 1)
            self.tree, full = self._tree_at(batch.start).extended(batch.leaves[: since.size - batch.start])
            self._tiles.compare(full)
            self.before = batch
        except (MalformedProof, UnknownName):
            self.tree = Tree()
        if self.tree.frontier.root != since.root:
            self._tiles.drop()
            self.tree = self._follow(since.size) or Tree()
        if self.tree.frontier.root == since.root:
            self._tiles.settle()
        else:
            self.signed, self.before = self.size, None
            self._fork(since)
        if self.before is not None and self.before.end != since.size:
            self.findings.add(Fault.FORGED, f"batch {self.before.start} of {self.log}", "a checkpoint ends within it")
            self.tree, self.before = self._follow(self.before.start) or Tree(), None
            self.signed = self.size
        for known in self.elsewhere:
            if known.size <= since.size and known.root not in self._roots_at(known.size, since.size):
                self._fork(known)
        self._tiles.drop()

    def _tree_at(self, size: int) -> Tree:
        return tree_of(read_edge(size, partial(self.seals.tile, self.log)))

    def _follow(self, size: int) -> Tree | None:
        """Return the tree of the first *size* leaves as batches hold them, None where they do not reach so far."""
        tree = Tree()
        for batch in self.batches_behind(0):
            if batch.start != tree.frontier.size:
                return None
            tree, full = tree.extended(batch.leaves[: size - batch.start])
            self._tiles.compare(full)
            if tree.frontier.size == size:
                return tree
        return None

    def _roots_at(self, size: int, known: int) -> Iterator[bytes]:
        """Yield the root of the first *size* entries by the stored tiles, and then by all leaves."""
        with suppress(MalformedProof, ValueError):
            yield read_frontier(size, self.seals.nodes(self.log, known)).root
        tree = self._follow(size)
        if tree is not None:
            yield tree.frontier.root

    def _take_entries(self, batch: Batch, records: Records) -> bool:
        """Return whether every entry of *batch* that is there has the bytes that were sealed."""
        there = [id_ for id_ in batch.ids if id_ in records]
        if len(there) < len(batch.ids) and batch.end > self.boundary:
            self.boundary = self.find_boundary()
        found = [records.get(id_, UNREADABLE) for id_ in batch.ids]
        leaves, streams, *_ = zip(*found, strict=True) if found else ((), ())
        is_sound = leaves == batch.leaves and None not in streams
        places = range(len(found)) if is_sound else self._sort_out(batch, records)
        self._take_sound(batch, [found[place] for place in places], places)
        self.tally.add(there)
        self.entries += len(there)
        return is_sound or len(places) == len(there)

    def _sort_out(self, batch: Batch, records: Records) -> list[int]:
        """Say what is wrong with entries of *batch*; return which of them are as they were sealed, in a place."""
        sound = []
        for place, (id_, leaf) in enumerate(zip(batch.ids, batch.leaves, strict=True)):
            found, stream, *_ = records.get(id_, UNREADABLE)
            if id_ not in records:
                self._miss(id_, batch.start + place, leaf)
            elif found != leaf:
                self._say(Fault.MODIFIED, id_, batch.start + place, "its bytes are not those that were sealed")
                self.streams.excuse(leaf)  # nothing that it says now is what was sealed
            elif stream is None:
                self._say(Fault.FORGED, id_, batch.start + place, "it has no place in the stream of a writer")
            else:
                sound.append(place)
        return sound

    def _take_sound(self, batch: Batch, records: Sequence[Record], places: Sequence[int]) -> None:
        """Take place and time of entries that are as they were sealed, by their places in *batch*."""
        sealed_at = self._take_seal(batch)
        if not records:
            return
        leaves, streams, numbers, befores, moments = zip(*records, strict=True)
        ids = [batch.ids[place] for place in places]
        self.streams.add(zip(ids, streams, numbers, befores, leaves, strict=True))
        for number, why in self.times.take_all(moments, sealed_at):
            self._say(Fault.BACKDATED, ids[number], batch.start + places[number], why)

    def _take_seal(self, batch: Batch) -> int:
        """Return until when its entries may have been written, in milliseconds."""
        why = self.times.take_seal(batch.sealed_at, was_there=batch.start <= self._last_start)
        if why is None:
            return milliseconds(batch.sealed_at)
        self.findings.add(Fault.FORGED, f"batch {batch.start} of {self.log}", why)
        return self.times.now

    def _miss(self, id_: str, index: int, leaf: bytes) -> None:
        if index >= self.boundary:
            self._say(Fault.MISSING, id_, index, "it was sealed and is gone")
            self.streams.excuse(leaf)

    def _compare_elsewhere(self, batch: Batch, followed: Frontier) -> None:
        for known in self.elsewhere:
            if batch.start < known.size <= batch.end:
                found = followed if known.size == batch.end else self._within(batch, known.size)
                if found.root != known.root:
                    self._fork(known)

    def _take_notes(self, batch: Batch, followed: Tree, *, is_intact: bool) -> Tree:
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
            found = followed.frontier if size == batch.end else self._within(batch, size)
            if signed.size == size and signed.root == found.root:
                self.signed, self.note, self._is_lost = size, note, False
                if size == batch.end:
                    self._take_signed(batch, followed)
                continue
            fault = Fault.REORDERED if is_intact else Fault.FORGED
            self._lose(f"entries {batch.start} to {batch.end - 1} do not lead to what was signed", fault)
            self._tiles.drop()
            if signed.root == batch.frontier.root:
                ahead, self.signed, self._is_lost = self._known_by(batch.frontier), size, False
        return ahead

    def _take_signed(self, batch: Batch, followed: Tree) -> None:
        """Note that a checkpoint signs all up to the end of *batch*."""
        self.sealed_at = batch.sealed_at
        self.times.sign()
        self._tiles.settle()
        if batch.frontier != followed.frontier:
            self.findings.add(
                Fault.FORGED, f"batch {batch.start} of {self.log}", "its frontier is not that of its leaves"
            )

    def _known_by(self, frontier: Frontier) -> Tree:
        """Return the tree of *frontier*, with its edge where the stored tiles are of the same tree."""
        try:
            found = self._tree_at(frontier.size)
        except MalformedProof:
            return Tree(frontier, None)
        return found if found.frontier == frontier else Tree(frontier, None)

    def _within(self, batch: Batch, size: int) -> Frontier:
        return self.tree.frontier.extended(batch.leaves[: size - batch.start])

    def _lose(self, why: str, fault: Fault) -> None:
        """Say once that the tree is not the one that was signed, until it is again."""
        if not self._is_lost:
            self.findings.add(fault, self.log, why)
        self._is_lost = True

    def _fork(self, known: Checkpoint) -> None:
        self.findings.add(
            Fault.FORK, self.log, f"its first {known.size} entries are not those of the checkpoint that was given"
        )

    def _say(self, fault: Fault, id_: str, index: int, why: str) -> None:
        self.findings.add(fault, f"entry {id_} ({self.log} {index})", why)
