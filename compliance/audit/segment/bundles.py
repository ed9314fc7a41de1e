"""The work of the verification: hash entries, and say which one is not the one that was logged.

Runs of bundles are independent of each other, so that each can go to a process of its own.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compliance.audit.merkle import HASH_BYTES, root_of
from compliance.audit.segment.finding import Fault, Finding
from compliance.audit.segment.folder import Folder
from compliance.audit.tiles import WIDTH, Bundle, Tile, parse_tile

_FULL = WIDTH * HASH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Bundles that follow each other, and what they have to lead to.

    Attributes:
        index: Of the first one.
        width: Of the last one; all others are full.
        roots: The root hash of each; None where a tile above is lost, so that nothing can prove it.
    """

    index: int
    roots: tuple[bytes | None, ...]
    width: int = WIDTH

    @property
    def entries(self) -> int:
        """How many entries they hold."""
        return (len(self.roots) - 1) * WIDTH + self.width


def check_run(folder: Path, run: Run) -> list[Finding]:
    """Return what is wrong with the bundles and level 0 tiles of *run*."""
    found: list[Finding] = []
    for offset, root in enumerate(run.roots):
        width = WIDTH if offset + 1 < len(run.roots) else run.width
        found += _check(Folder(folder), Bundle(run.index + offset, width), root)
    return found


def tile_root(data: bytes) -> bytes:
    """Return the root hash over the hashes of a tile."""
    if len(data) != _FULL:
        return root_of(parse_tile(data, width=len(data) // HASH_BYTES))
    level = data
    while len(level) > HASH_BYTES:  # like root_of, in a third of the time
        pairs = range(0, len(level), 2 * HASH_BYTES)
        level = b"".join([_sha256(b"\x01" + level[place : place + 2 * HASH_BYTES]).digest() for place in pairs])
    return level


def hash_entries(data: bytes, *, width: int) -> tuple[bytes, bool]:
    """Return the leaf hashes of a bundle, joined, and whether it holds *width* entries and nothing else."""
    buffer = bytearray(data)
    view, place, end = memoryview(buffer), 0, len(buffer)
    hashes: list[bytes] = []
    while place + 1 < end and len(hashes) < width:
        begin = place + 1
        place += 2 + (buffer[place] << 8 | buffer[begin])
        if place > end:
            break
        buffer[begin] = 0  # the prefix of a leaf, in the place of a length that was read: no entry is copied
        hashes.append(_sha256(view[begin:place]).digest())
    return b"".join(hashes), place == end and len(hashes) == width


_sha256 = hashlib.sha256


def _check(folder: Folder, bundle: Bundle, root: bytes | None) -> list[Finding]:
    tile = Tile(0, bundle.index, bundle.width)
    hashes, data = folder.tile(tile), folder.bundle(bundle)
    computed, is_whole = hash_entries(data or b"", width=bundle.width)
    if is_whole and computed == hashes and tile_root(computed) == root:
        return []
    return list(_explain(tile, bundle, hashes=hashes, data=data, root=root))


def _explain(
    tile: Tile, bundle: Bundle, *, hashes: bytes | None, data: bytes | None, root: bytes | None
) -> Iterator[Finding]:
    first = bundle.index * WIDTH
    is_tile = hashes is not None and len(hashes) == tile.width * HASH_BYTES
    if root is None and hashes is not None and is_tile:
        root = tile_root(hashes)  # that nothing proves it was said of the tile above
    is_proven = is_tile and hashes is not None and tile_root(hashes) == root
    if hashes is None:
        yield Finding(fault=Fault.MISSING_FILE, path=tile.path, why="is missing, or cannot be read")
    elif not is_proven:
        yield Finding(fault=Fault.WRONG_TILE, path=tile.path, why="its hashes do not lead to the root hash of the log")
    computed, is_whole = hash_entries(data or b"", width=bundle.width)
    if is_whole and tile_root(computed) == root:
        return
    if data is None:
        yield Finding(fault=Fault.MISSING_FILE, path=bundle.path, why="is missing, or cannot be read", index=first)
    elif hashes is None or not is_proven:
        why = "neither these entries nor their tile lead to the root hash of the log"
        yield Finding(fault=Fault.UNPROVEN, path=bundle.path, why=why, index=first)
    else:
        yield from _name_entries(bundle, hashes, computed, is_whole=is_whole)


def _name_entries(bundle: Bundle, hashes: bytes, computed: bytes, *, is_whole: bool) -> Iterator[Finding]:
    """Name the entries that are not those whose *hashes* are proven."""
    pairs = zip(parse_tile(hashes, width=bundle.width), _split(computed), strict=False)
    differing = [bundle.index * WIDTH + offset for offset, (logged, found) in enumerate(pairs) if logged != found]
    if is_whole:
        for index in differing:
            why = "its bytes are not those that were logged"
            yield Finding(fault=Fault.MODIFIED_ENTRY, path=bundle.path, why=why, index=index)
    else:  # a length is wrong: what follows is shifted, and not each of those entries was modified
        last = bundle.index * WIDTH + bundle.width - 1
        first = min([*differing, bundle.index * WIDTH + len(computed) // HASH_BYTES, last])
        why = f"from this entry on it does not hold the {bundle.width} entries that were logged"
        yield Finding(fault=Fault.WRONG_BUNDLE, path=bundle.path, why=why, index=first)


def _split(hashes: bytes) -> list[bytes]:
    return parse_tile(hashes, width=len(hashes) // HASH_BYTES)
