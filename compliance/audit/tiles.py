"""The log as files that never change: tiles of hashes, and bundles of entries.

A tile holds up to 256 hashes of every eighth level of the tree; the levels between are computed from it. A bundle holds
the entries whose leaf hashes are in the level 0 tile of the same index. Reading and writing the files is the caller's.
What was read shows nothing by itself: a proof made of it MUST be verified against a signed root hash.

Source: C2SP tlog-tiles (Merkle Tree, Partial Tiles, Log entries).
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

from compliance.audit.merkle import HASH_BYTES, Frontier, NodeReader, check_hashes, root_of
from compliance.errors import MalformedProof

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 0xFFFF  # the length of an entry is written in 16 bits

_CACHED_TILES = 64  # 512 KiB; a proof reads each level's tiles several times in a row
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A place for hashes: number *index* of *level*, full, or with *width* hashes where the tree ends in it."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (0 <= self.level <= MAX_LEVEL and self.index >= 0 and 1 <= self.width <= WIDTH):
            raise MalformedProof(f"no tile has level {self.level}, index {self.index} and width {self.width}")

    @property
    def path(self) -> str:
        """Where it is, below the prefix of the log."""
        return f"tile/{self.level}/{_place(self.index, self.width)}"


@dataclass(frozen=True, slots=True, order=True)
class Bundle:
    """A place for entries: those of the level 0 tile of the same index and width."""

    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (self.index >= 0 and 1 <= self.width <= WIDTH):
            raise MalformedProof(f"no bundle has index {self.index} and width {self.width}")

    @property
    def path(self) -> str:
        """Where it is, below the prefix of the log."""
        return f"tile/entries/{_place(self.index, self.width)}"


TileReader = Callable[[Tile], bytes]
"""Gives the bytes of a tile, or of a wider one in its place: a partial tile may be gone once the full one is there."""


def parse_path(path: str) -> Tile | Bundle:
    """Return what is at *path*.

    Raises:
        MalformedProof: When nothing can be there, or it is there under another path.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise MalformedProof("not the path of a tile or bundle")
    index = int(found["index"].replace("x", "").replace("/", ""))
    width = int(found["width"] or WIDTH)
    place = Bundle(index, width) if found["level"] == "entries" else Tile(int(found["level"]), index, width)
    if place.path != path:
        raise MalformedProof("not the path of a tile or bundle, but close to one")
    return place


def tiles_between(first: int, second: int) -> Iterator[Tile]:
    """Yield the tiles of a tree of size *second* that one of size *first* does not have, lowest level first.

    From zero, these are all tiles of the tree.
    """
    for level in count():
        old, new = first >> (HEIGHT * level), second >> (HEIGHT * level)
        if old >= new:
            return
        yield from (Tile(level, index, width) for index, width in _places(old, new))


def bundles_between(first: int, second: int) -> Iterator[Bundle]:
    """Yield the bundles of a log of *second* entries that one of *first* entries does not have."""
    return (Bundle(index, width) for index, width in _places(first, second))


def stream_tiles(leaves: Iterable[bytes], *, begin: int = 0, read: TileReader) -> Iterator[tuple[Tile, bytes]]:
    """Yield the tiles, with their bytes, of the tree whose leaf hashes from *begin* on are *leaves*; each tile once.

    A tile comes as soon as it is full, and at the end what is not. Those whose entries are all below *begin* are left
    out: what is kept proves the rest. Memory grows with the height of the tree only.

    Args:
        leaves: Leaf hashes.
        begin: A multiple of 256.
        read: Gives the tiles of the tree of the first *begin* leaves; asked for one partial tile of each level at most.
    """
    rows = list(_rows(begin, read))
    for leaf in leaves:
        (node,), level = check_hashes((leaf,)), 0
        while node:
            if level == len(rows):
                rows.append(_Row(0))
            row = rows[level]
            row.hashes.append(node)
            node = b""
            if len(row.hashes) == WIDTH:
                yield Tile(level, row.index), b"".join(row.hashes)
                node = root_of(row.hashes)
                rows[level] = _Row(row.index + 1)
            level += 1
    for level, row in enumerate(rows):
        if row.hashes:
            yield Tile(level, row.index, len(row.hashes)), b"".join(row.hashes)


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree in tiles: level by level, the hashes that are in no full tile yet.

    With it, a tree grows without a look at any tile.
    """

    size: int = 0
    levels: tuple[tuple[bytes, ...], ...] = ()

    @property
    def frontier(self) -> Frontier:
        """The frontier of the tree: whether an edge that was read is that of a known tree."""
        hashes = (found for level in reversed(self.levels) for found in Frontier().extended(level).hashes)
        return Frontier(self.size, tuple(hashes))

    def extended(self, leaves: Iterable[bytes]) -> tuple["Edge", list[tuple[Tile, bytes]]]:
        """Return the edge after leaf hashes *leaves*, and the tiles that they filled, with their bytes."""
        fresh = check_hashes(leaves)
        size, levels, full = self.size + len(fresh), [], []
        for level in count():
            kept = self.levels[level] if level < len(self.levels) else ()
            if not fresh and not kept and level >= len(self.levels):
                break
            hashes, fresh = [*kept, *fresh], []
            index = (self.size >> (HEIGHT * level)) // WIDTH
            while len(hashes) >= WIDTH:
                part, hashes = hashes[:WIDTH], hashes[WIDTH:]
                full.append((Tile(level, index + len(fresh)), b"".join(part)))
                fresh.append(root_of(part))
            levels.append(tuple(hashes))
        return Edge(size, tuple(levels)), full


def read_edge(size: int, read: TileReader) -> Edge:
    """Return the edge of a tree of *size*, from its partial tiles."""
    levels = []
    for level in count():
        total = size >> (HEIGHT * level)
        if total == 0:
            break
        index, width = divmod(total, WIDTH)
        levels.append(tuple(_hashes(Tile(level, index, width), read)) if width else ())
    return Edge(size, tuple(levels))


def parse_tile(data: bytes, *, width: int) -> list[bytes]:
    """Return the *width* hashes of a tile.

    Raises:
        MalformedProof: When *data* is shorter or longer.
    """
    if len(data) != width * HASH_BYTES:
        raise MalformedProof(f"a tile of width {width} has {len(data)} bytes instead of {width * HASH_BYTES}")
    return [data[begin : begin + HASH_BYTES] for begin in range(0, len(data), HASH_BYTES)]


def nodes_in_tiles(size: int, *, read: TileReader) -> NodeReader:
    """Return a reader of the nodes of the tree of *size*; it keeps the last few tiles.

    It asks *read* only for tiles that a tree of that size has. For a node that it does not have it raises `ValueError`.
    """

    @lru_cache(maxsize=_CACHED_TILES)
    def hashes(tile: Tile) -> list[bytes]:
        return _hashes(tile, read)

    def node(level: int, index: int) -> bytes:
        if not 0 <= index < size >> level:
            raise ValueError(f"a tree of size {size} has no node {index} of level {level}")
        row, height = divmod(level, HEIGHT)
        place, offset = divmod(index << height, WIDTH)
        width = min(WIDTH, (size >> (HEIGHT * row)) - place * WIDTH)
        return root_of(hashes(Tile(row, place, width))[offset : offset + (1 << height)])

    return node


def bundle_bytes(entries: Sequence[bytes]) -> bytes:
    """Return the bytes of a bundle of *entries*: each after its length in 16 bits, high byte first.

    Raises:
        ValueError: For no entry, more than 256, or one above 65,535 bytes.
    """
    if not 1 <= len(entries) <= WIDTH:
        raise ValueError(f"a bundle cannot hold {len(entries)} entries")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise ValueError(f"an entry of a bundle holds at most {MAX_ENTRY_BYTES} bytes")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def parse_bundle(data: bytes, *, width: int) -> list[bytes]:
    """Return the *width* entries of a bundle.

    Raises:
        MalformedProof: When *data* ends within an entry, or holds fewer or more.
    """
    entries: list[bytes] = []
    place = 0
    while place < len(data):
        begin = place + 2
        place = begin + int.from_bytes(data[begin - 2 : begin], "big")
        if place > len(data):
            raise MalformedProof(f"a bundle ends within entry {len(entries)}")
        entries.append(data[begin:place])
    if len(entries) != width:
        raise MalformedProof(f"a bundle of width {width} has {len(entries)} entries")
    return entries


@dataclass(slots=True)
class _Row:
    """The tile of one level that is not full yet."""

    index: int
    hashes: list[bytes] = field(default_factory=list)


def _rows(begin: int, read: TileReader) -> Iterator[_Row]:
    for level in count():
        index, width = divmod(begin >> (HEIGHT * level), WIDTH)
        if not index and not width:
            return
        yield _Row(index, _hashes(Tile(level, index, width), read) if width else [])


def _hashes(tile: Tile, read: TileReader) -> list[bytes]:
    data = read(tile)
    if len(data) > WIDTH * HASH_BYTES or len(data) % HASH_BYTES or len(data) < tile.width * HASH_BYTES:
        raise MalformedProof(f"{tile.path} has {len(data)} bytes instead of {tile.width * HASH_BYTES}")
    return parse_tile(data[: tile.width * HASH_BYTES], width=tile.width)


def _places(first: int, second: int) -> Iterator[tuple[int, int]]:
    """Yield index and width of what holds the items from *first* to *second*, 256 each."""
    for index in range(first // WIDTH, -(-second // WIDTH)) if first < second else ():
        yield index, min(WIDTH, second - index * WIDTH)


def _place(index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[begin : begin + 3] for begin in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]]) + (f".p/{width}" if width < WIDTH else "")
