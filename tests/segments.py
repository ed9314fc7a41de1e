"""Segments of a log of three levels, and what is found in them."""

from pathlib import Path

from compliance.audit.checkpoint import Checkpoint, Policy, sign_checkpoint
from compliance.audit.keys import SigningKey
from compliance.audit.merkle import leaf_hash, nodes_of, root_of
from compliance.audit.segment import Fault, SegmentReport, verify_segment, write_segment
from compliance.audit.tiles import (
    HEIGHT,
    Tile,
    tiles_between,
)

ORIGIN = "example.com/log"
LOG = SigningKey.from_seed(ORIGIN, b"l" * 32)
POLICY = Policy(origin=ORIGIN, keys=(LOG.verifier,))
LONG = 66_000  # three levels, so that tiles above level 1 are there
LEAVES = [b"%d:" % number + b"e" * (number % 7) for number in range(LONG)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
NODES = nodes_of(HASHES)


def signed(size: int, key: SigningKey = LOG) -> bytes:
    return sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root_of(HASHES[:size])), [key])


def tile_of(tile: Tile) -> bytes:
    """The tile of the whole tree at that place, or a wider one."""
    first = tile.index * 256
    return b"".join(NODES(HEIGHT * tile.level, first + offset) for offset in range(tile.width))


def written(folder: Path, size: int, begin: int = 0) -> Path:
    path = folder / f"log-{size}-{begin}"
    write_segment(path, leaves=LEAVES[begin:size], checkpoint=signed(size), begin=begin, read=tile_of)
    return path


def files_of(path: Path) -> set[str]:
    return {found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()}


def verified(path: Path, begin: int = 0) -> SegmentReport:
    return verify_segment(path, policy=POLICY, begin=begin, processes=1)


def faults(path: Path, begin: int = 0) -> list[tuple[Fault, str, int | None]]:
    return [(found.fault, found.path, found.index) for found in verified(path, begin).findings]


def kept_tiles(begin: int, size: int) -> list[Tile]:
    """Those whose end index, as the specification defines it, is above *begin*."""
    return [tile for tile in tiles_between(0, size) if (tile.index + 1) * 256 ** (tile.level + 1) > begin]


def flip(path: Path, place: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.write_bytes(data)
