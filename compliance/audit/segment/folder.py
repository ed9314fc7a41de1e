"""The files of a segment, whatever somebody may have put in their place."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compliance.audit.merkle import HASH_BYTES
from compliance.audit.tiles import HEIGHT, MAX_ENTRY_BYTES, WIDTH, Bundle, Tile, parse_path
from compliance.errors import InvalidPayload, MalformedProof

CHECKPOINT = "checkpoint"
MAX_CHECKPOINT_BYTES = 64 * 1024
_MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_ENTRY_BYTES)
_MAX_TILE_BYTES = WIDTH * HASH_BYTES


@dataclass(frozen=True, slots=True)
class Folder:
    """Reads the files of a segment; nothing in it can make that hang, lead elsewhere or fill the memory."""

    path: Path

    def checkpoint(self) -> bytes | None:
        """Return the signed note, None where it cannot be read."""
        return self._read(CHECKPOINT, MAX_CHECKPOINT_BYTES)

    def tile(self, tile: Tile) -> bytes | None:
        """Return the bytes of *tile*, None where they cannot be read."""
        return self._read(tile.path, _MAX_TILE_BYTES)

    def bundle(self, bundle: Bundle) -> bytes | None:
        """Return the bytes of *bundle*, None where they cannot be read."""
        return self._read(bundle.path, _MAX_BUNDLE_BYTES)

    def superfluous(self, begin: int, size: int) -> Iterator[tuple[str, str]]:
        """Yield path and reason of whatever a segment of the entries from *begin* to *size* does not have."""
        for directory, names, files in os.walk(self.path):
            names.sort()
            for name in sorted((*names, *files)):
                whole = Path(directory, name)
                path = whole.relative_to(self.path).as_posix()
                mode = _mode(whole)
                if mode is None or stat.S_ISDIR(mode):
                    continue
                if not stat.S_ISREG(mode):
                    yield path, "is no plain file"
                elif path != CHECKPOINT and not _belongs(path, begin, size):
                    yield path, "does not belong to the log"

    def _read(self, path: str, limit: int) -> bytes | None:
        """Return at most one byte more than *limit*, which tells that a file is too long."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would wait for a writer
        try:
            with os.fdopen(os.open(self.path / path, flags), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                return file.read(limit + 1)
        except OSError:
            return None


def open_folder(path: Path) -> Folder:
    """Return the folder at *path*.

    Raises:
        InvalidPayload: When there is none.
    """
    if not path.is_dir():
        name = printable(path.name)
        raise InvalidPayload(f"there is no folder {name}; give the one that holds {CHECKPOINT} and tile")
    return Folder(path)


def printable(path: str) -> str:
    """Return *path* without anything that could move the cursor of a terminal."""
    return ascii(path)[1:-1]


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except OSError:
        return None


def _belongs(path: str, begin: int, size: int) -> bool:
    try:
        place = parse_path(path)
    except MalformedProof:
        return False
    level = place.level if isinstance(place, Tile) else 0
    here = size >> (HEIGHT * level)
    return (place.index + 1) << (HEIGHT * (level + 1)) > begin and place.width == min(WIDTH, here - place.index * WIDTH)
