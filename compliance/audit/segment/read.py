"""Read a segment: its entries, and the tree that proves them. Nothing here is verified."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from compliance.audit.checkpoint import Checkpoint, parse_checkpoint
from compliance.audit.merkle import NodeReader
from compliance.audit.note import parse_note
from compliance.audit.segment.folder import CHECKPOINT, Folder, open_folder
from compliance.audit.tiles import WIDTH, Bundle, Tile, nodes_in_tiles, parse_bundle
from compliance.errors import MalformedProof, UnknownName


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A folder as it says what it is.

    Attributes:
        note: The signed checkpoint, byte by byte.
        tree: What it states.
    """

    folder: Folder
    note: bytes
    tree: Checkpoint

    def begin(self) -> int:
        """Return the first entry that is there, the size of the log where none is.

        Whoever verifies MUST NOT take this for the first entry that has to be there.
        """
        bundles = (self._bundle(index) for index in range(-(-self.tree.size // WIDTH)))
        there = (bundle.index * WIDTH for bundle in bundles if self.folder.bundle(bundle) is not None)
        return next(there, self.tree.size)

    def entries(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of the entries from *begin*, a multiple of 256, to *end*.

        Raises:
            MalformedProof: Where they are not there.
        """
        for first in range(begin, end, WIDTH):
            yield from self._entries(first // WIDTH)[: end - first]

    def find(self, entry_id: str) -> tuple[int, bytes]:
        """Return index and bytes of one entry.

        Raises:
            UnknownName: When it is not there.
            MalformedProof: Where a bundle is missing or damaged.
        """
        for index in range(self.begin() // WIDTH, -(-self.tree.size // WIDTH)):
            for place, leaf in enumerate(self._entries(index), index * WIDTH):
                if entry_id.encode() in leaf and read_entry(leaf).get("_id") == entry_id:
                    return place, leaf
        raise UnknownName("there is no entry with this id in the folder")

    def nodes(self) -> NodeReader:
        """Return a reader of the tree; it raises ``MalformedProof`` where a tile is missing."""
        return nodes_in_tiles(self.tree.size, read=self._tile)

    def _bundle(self, index: int) -> Bundle:
        return Bundle(index, min(WIDTH, self.tree.size - index * WIDTH))

    def _entries(self, index: int) -> list[bytes]:
        bundle = self._bundle(index)
        data = self.folder.bundle(bundle)
        if data is None:
            raise MalformedProof(f"{bundle.path} is missing, or cannot be read")
        return parse_bundle(data, width=bundle.width)

    def _tile(self, tile: Tile) -> bytes:
        data = self.folder.tile(tile)
        if data is None:
            raise MalformedProof(f"{tile.path} is missing, or cannot be read")
        return data


def open_segment(path: Path) -> Segment:
    """Return the segment at *path*.

    Raises:
        InvalidPayload: When there is no such folder.
        MalformedProof: When it has no checkpoint.
    """
    folder = open_folder(path)
    note = folder.checkpoint()
    if note is None:
        raise MalformedProof(f"the {CHECKPOINT} of the folder is missing, or cannot be read")
    return Segment(folder=folder, note=note, tree=parse_checkpoint(parse_note(note)[0]))


def read_entry(leaf: bytes) -> dict[str, object]:
    """Return what the bytes of an entry say.

    Raises:
        MalformedProof: When they are not those of an entry.
    """
    try:
        found = orjson.loads(leaf)
    except ValueError:
        raise MalformedProof("an entry of the folder is no JSON") from None
    if not isinstance(found, dict):
        raise MalformedProof("an entry of the folder is no JSON object")
    return found
