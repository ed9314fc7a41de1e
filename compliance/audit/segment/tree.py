"""The tiles of a segment, proven from the signed root hash down, so that a finding names the file that is wrong.

A tile is proven by the hash that the tile above holds for it, the tiles at the right edge of the tree by the root hash.
One that is not is computed anew from the level below, and where that leads to the expected hash, the level below is
proven all the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from compliance.audit.checkpoint import Checkpoint
from compliance.audit.merkle import HASH_BYTES, read_frontier
from compliance.audit.segment.bundles import Run, hash_entries, tile_root
from compliance.audit.segment.finding import Fault, Finding
from compliance.audit.segment.folder import CHECKPOINT, Folder
from compliance.audit.tiles import HEIGHT, WIDTH, Bundle, Tile, nodes_in_tiles

RUN_BUNDLES = 32  # some 8 MB of entries: enough for a process to be worth its while, few to hold in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The tree that *checkpoint* states, as *folder* has it from entry *begin* on.

    Attributes:
        note: Told of every finding.
    """

    folder: Folder
    checkpoint: Checkpoint
    begin: int
    note: Callable[[Finding], None]

    def runs(self) -> Iterator[Run]:
        """Yield all bundles in their order, with the hashes that they must lead to; note what is wrong above them."""
        edge = self._prove_edge()
        for tile in sorted(edge, reverse=True):
            data = edge[tile]
            if tile.level == 0:
                yield Run(index=tile.index, width=tile.width, roots=(tile_root(data) if data else None,))
            else:
                yield from self._below(tile, _expected(data, tile.width))

    def _below(self, tile: Tile, expected: Sequence[bytes | None]) -> Iterator[Run]:
        """Yield the bundles below *tile*, whose hashes are *expected*."""
        first = tile.index * WIDTH
        kept = max(first, self.begin >> (HEIGHT * tile.level))
        if tile.level == 1:
            for index in range(kept, first + len(expected), RUN_BUNDLES):
                roots = tuple(expected[index - first :][:RUN_BUNDLES])
                yield Run(index=index, roots=roots)
            return
        for index in range(kept, first + len(expected)):
            child = Tile(tile.level - 1, index)
            yield from self._below(child, _expected(self._prove(child, expected[index - first]), WIDTH))

    def _prove(self, tile: Tile, root: bytes | None) -> bytes | None:
        """Return the bytes that *tile* must have to lead to *root*, None where nothing in the folder does.

        Without a *root* nothing can be proven, and the tile is taken at its word.
        """
        data = self._read(tile)
        if data is not None and root in (None, tile_root(data)):
            return data
        self._note_tile(tile)
        computed = self._compute(tile)
        if computed is not None and root in (None, tile_root(computed)):
            return computed
        self._note_unproven(tile.path, tile.index << (HEIGHT * (tile.level + 1)))
        return None

    def _prove_edge(self) -> dict[Tile, bytes | None]:
        """Return the bytes of the partial tiles, one of each level at most, which together make up the root hash."""
        size, root = self.checkpoint.size, self.checkpoint.root
        tiles = list(_edge(size))
        stored = {tile: self._read(tile) for tile in tiles}
        if None not in stored.values() and _root(size, stored) == root:
            return stored
        candidates = [[stored[tile], self._compute(tile)] for tile in tiles]
        for choice in product(*candidates):
            chosen = dict(zip(tiles, choice, strict=True))
            if None not in choice and _root(size, chosen) == root:
                for tile in tiles:
                    if chosen[tile] != stored[tile] and tile.level:  # level 0 is compared with its bundle anyway
                        self._note_tile(tile)
                return chosen
        return self._lose_edge(stored)

    def _lose_edge(self, stored: dict[Tile, bytes | None]) -> dict[Tile, bytes | None]:
        for tile, data in stored.items():
            if data is None and tile.level:
                self._note_tile(tile)
        why = "the tiles do not lead to the root hash that the log signed"
        self.note(Finding(fault=Fault.WRONG_ROOT, path=CHECKPOINT, why=why))
        self._note_unproven(CHECKPOINT, self.begin)
        return stored

    def _compute(self, tile: Tile) -> bytes | None:
        """Return the bytes of *tile* as they follow from the level below, None where something is missing there."""
        if tile.level == 0:
            hashes, is_whole = hash_entries(self.folder.bundle(Bundle(tile.index, tile.width)) or b"", width=tile.width)
            return hashes if is_whole else None
        stored = self._read(tile)
        parts: list[bytes] = []
        for offset in range(tile.width):
            child = Tile(tile.level - 1, tile.index * WIDTH + offset)
            part = None
            if (child.index + 1) << (HEIGHT * tile.level) > self.begin:
                below = self._read(child) or self._compute(child)
                part = tile_root(below) if below else None
            elif stored is not None:  # what is below was pruned
                part = stored[offset * HASH_BYTES :][:HASH_BYTES]
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def _read(self, tile: Tile) -> bytes | None:
        data = self.folder.tile(tile)
        return data if data is not None and len(data) == tile.width * HASH_BYTES else None

    def _note_tile(self, tile: Tile) -> None:
        if self.folder.tile(tile) is None:
            self.note(Finding(fault=Fault.MISSING_FILE, path=tile.path, why="is missing, or cannot be read"))
        else:
            why = "its hashes do not lead to the root hash of the log"
            self.note(Finding(fault=Fault.WRONG_TILE, path=tile.path, why=why))

    def _note_unproven(self, path: str, index: int) -> None:
        why = "what is below cannot be proven from this entry on"
        self.note(Finding(fault=Fault.UNPROVEN, path=path, why=why, index=max(index, self.begin)))


def _edge(size: int) -> Iterator[Tile]:
    """Yield the partial tiles of a tree of *size*."""
    level = 0
    while here := size >> (HEIGHT * level):
        index, width = divmod(here, WIDTH)
        if width:
            yield Tile(level, index, width)
        level += 1


def _root(size: int, tiles: dict[Tile, bytes | None]) -> bytes:
    return read_frontier(size, nodes_in_tiles(size, read=lambda tile: tiles[tile] or b"")).root


def _expected(data: bytes | None, width: int) -> list[bytes | None]:
    if data is None:
        return [None] * width
    return [data[begin : begin + HASH_BYTES] for begin in range(0, len(data), HASH_BYTES)]
