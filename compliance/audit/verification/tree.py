"""The tree of a log as it is followed from its leaves, and the tiles of it that are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compliance.audit.merkle import Frontier
from compliance.audit.seals import Seals
from compliance.audit.tiles import HEIGHT, WIDTH, Edge, Tile
from compliance.audit.verification.finding import MAX_FINDINGS, Fault, Findings
from compliance.errors import MalformedProof

Full = list[tuple[Tile, bytes]]


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree so far.

    Attributes:
        edge: Its hashes that are in no full tile yet; None where only the frontier is known.
    """

    frontier: Frontier = field(default_factory=Frontier)
    edge: Edge | None = field(default_factory=Edge)

    def extended(self, leaves: Sequence[bytes]) -> tuple["Tree", Full]:
        """Return the tree after *leaves*, and the tiles that they filled."""
        if self.edge is None:
            return Tree(self.frontier.extended(leaves), None), []
        edge, full = self.edge.extended(leaves)
        # Few leaves cost less than the hashes at the edge, of which there are 255 at each level at most.
        frontier = self.frontier.extended(leaves) if len(leaves) < WIDTH else edge.frontier
        return Tree(frontier, edge), full


def tree_of(edge: Edge) -> Tree:
    """Return the tree with *edge*."""
    return Tree(edge.frontier, edge)


@dataclass(slots=True, kw_only=True)
class StoredTiles:
    """Compares the tiles of one log that are stored with those that its leaves make.

    What differs is said once a checkpoint signed the tree: else it is the leaves that are wrong.
    """

    seals: Seals
    log: str
    findings: Findings
    _odd: list[tuple[Fault, Tile]] = field(default_factory=list)

    def compare(self, full: Full) -> None:
        """Compare *full* with what is stored."""
        stored = self.seals.stored_tiles(self.log, [tile for tile, _ in full]) if full else {}
        for tile, hashes in full:
            if len(self._odd) < MAX_FINDINGS and stored.get((tile.level, tile.index)) != hashes:
                is_there = (tile.level, tile.index) in stored
                self._odd.append((Fault.MODIFIED if is_there else Fault.MISSING, tile))

    def settle(self) -> None:
        """Say what differs from the tree, which was signed."""
        for fault, tile in self._odd:
            why = "its hashes are not those of the leaves" if fault is Fault.MODIFIED else "the leaves are there"
            self.findings.add(fault, shown(tile, self.log), why)
        self._odd.clear()

    def drop(self) -> None:
        """Forget what differs: the tree was not the one that was signed."""
        self._odd.clear()


def say_planted(seals: Seals, findings: Findings) -> None:
    """Say which stored tiles are beyond the tree of their log: the sealer could not put its own in their place."""
    ends: dict[str, int] = {}
    found = 0
    for place in seals.tile_places():
        known = _read_place(place)
        if known is None:
            findings.add(Fault.FORGED, "a tile with an id that is none", "the sealer writes no such tile")
            continue
        log, tile = known
        if _is_beyond(tile, ends.get(log, 0)):
            ends[log] = seals.extent(log)[1]  # it grows meanwhile
        if _is_beyond(tile, ends.get(log, 0)):
            findings.add(Fault.FORGED, shown(tile, log), "the log does not reach so far")
            found += 1
        if found > MAX_FINDINGS:
            return


def _read_place(place: Any) -> tuple[str, Tile] | None:
    if not isinstance(place, dict) or list(place) != ["log", "level", "index"]:
        return None
    log, level, index = place.values()
    if not isinstance(log, str) or not isinstance(level, int) or not isinstance(index, int):
        return None
    try:
        return log, Tile(level, index)
    except MalformedProof:
        return None


def _is_beyond(tile: Tile, size: int) -> bool:
    return (tile.index + 1) * WIDTH > size >> (HEIGHT * tile.level)


def shown(tile: Tile, log: str) -> str:
    """Return what a finding calls *tile*."""
    return f"tile {tile.path} of {log}"
