"""The streams of the writers: numbered without a gap, each entry with the hash of the one before.

Entries of a stream may come in another order than they were written (the sealer may have had to scan the log), so runs
are put together in the end, and what stays apart then is a gap.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

Place = tuple[str, str]
"""The key and the name of a stream."""

MAX_EXCUSED = 100_000  # of a log that misses more, a thousand findings are named anyway


@dataclass(slots=True)
class Run:
    """Entries of a stream without a gap between them.

    Attributes:
        prev: What the first one names as the hash of the entry before it.
        last_hash: The hash of the last one.
        last_id: The id of the last one.
    """

    first: int
    prev: bytes | None
    last: int
    last_hash: bytes
    last_id: str


@dataclass(slots=True)
class Streams:
    """What is known of every stream; memory grows with the number of streams, not of entries.

    Attributes:
        is_whole: Whether every stream begins within what is verified.
    """

    is_whole: bool
    _runs: dict[Place, list[Run]] = field(default_factory=dict)
    _excused: set[bytes] = field(default_factory=set)

    def add(self, entries: Iterable[tuple[str, Place, int, bytes | None, bytes]]) -> None:
        """Add entries: the id of each, its place and number, what it names as the hash before, and its own."""
        for id_, place, seq, prev, leaf in entries:
            runs = self._runs.get(place)
            if runs is None:
                self._runs[place] = [Run(seq, prev, seq, leaf, id_)]
            elif runs[-1].last_hash == prev and runs[-1].last + 1 == seq:
                run = runs[-1]
                run.last, run.last_hash, run.last_id = seq, leaf, id_
            else:
                runs.append(Run(seq, prev, seq, leaf, id_))

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Yield every run with the name of its stream.

        The signature of its last entry vouches for all of it: it is over the hash of the entry before, that hash is
        over the signature of that entry, and so on. Runs that follow each other are not joined for that, nor is an
        entry that is not as it was sealed.
        """
        return ((stream, run) for (_, stream), runs in self._runs.items() for run in runs)

    def excuse(self, leaf: bytes) -> None:
        """Note that the entry with this hash is missing or altered, which is reported, so that its stream is not."""
        if len(self._excused) < MAX_EXCUSED:
            self._excused.add(leaf)

    def befores(self) -> set[bytes]:
        """Return the hashes that the first entries of runs name as that of the entry before them."""
        return {run.prev for runs in self._runs.values() for run in runs if run.prev is not None}

    def gaps(self) -> Iterator[tuple[str, str]]:
        """Yield every stream that is not whole, and why."""
        for (_, stream), runs in self._runs.items():
            runs.sort(key=lambda run: run.first)
            if self.is_whole and runs[0].first and runs[0].prev not in self._excused:
                yield stream, f"it begins with number {runs[0].first}"
            for before, after in pairwise(runs):
                if after.prev in self._excused:
                    continue
                if after.first == before.last + 1 and after.prev == before.last_hash:
                    continue
                if after.first > before.last + 1:
                    yield stream, f"numbers {before.last + 1} to {after.first - 1} are missing"
                else:
                    yield stream, f"number {after.first} does not follow the entry before it"
