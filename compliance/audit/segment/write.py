"""Write a segment: all of it, or nothing under its name."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

from compliance.audit.checkpoint import parse_checkpoint
from compliance.audit.merkle import leaf_hash
from compliance.audit.note import parse_note
from compliance.audit.segment.finding import Finding
from compliance.audit.segment.folder import CHECKPOINT, Folder, printable
from compliance.audit.segment.verify import check_begin, examine
from compliance.audit.tiles import MAX_ENTRY_BYTES, WIDTH, Bundle, Tile, TileReader, bundle_bytes, stream_tiles
from compliance.errors import InvalidPayload, InvalidProof


def write_segment(
    path: Path, *, leaves: Iterable[bytes], checkpoint: bytes, begin: int = 0, read: TileReader | None = None
) -> None:
    """Write *leaves* and *checkpoint* as the new folder *path*, readable by its owner only; memory stays flat.

    The folder appears in one step, after everything is on disk and was read back and found to lead to the root hash of
    *checkpoint*. Who is killed leaves a hidden folder ``.<name>.<random>.part`` beside it, which can be removed.

    Args:
        path: The folder to make; the one above it has to be there.
        leaves: The bytes of the entries from *begin* to the size of *checkpoint*.
        checkpoint: The signed note; its signatures are not verified here.
        begin: A multiple of 256; above zero only for a log that was pruned below.
        read: Gives the tiles of the tree of the first *begin* entries; needed where *begin* is above zero.

    Raises:
        InvalidPayload: When *path* is there already or cannot be made, or there cannot be a segment from *begin* on.
        MalformedProof: When *checkpoint* is not a checkpoint.
        InvalidProof: When *leaves* do not lead to its root hash; nothing is written then.
    """
    tree = parse_checkpoint(parse_note(checkpoint)[0])
    check_begin(begin, tree.size)
    if begin and read is None:
        raise ValueError("a segment that begins later needs the tiles of what is before it")
    work = _make_folder(path)
    try:
        _write_file(work / CHECKPOINT, checkpoint)
        hashes = _write_bundles(work, leaves, begin=begin, size=tree.size)
        for tile, data in stream_tiles(hashes, begin=begin, read=read or _nothing):
            _write_file(work / tile.path, data)
        for _ in examine(Folder(work), tree, begin=begin, note=_refuse):
            pass
        for directory, _, _ in os.walk(work):
            _sync(Path(directory))
        _rename(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make_folder(path: Path) -> Path:
    if os.path.lexists(path):
        raise _taken(path)
    try:
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        name = printable(path.name)
        raise InvalidPayload(f"folder {name} cannot be made where it should be ({type(error).__name__})") from None


def _rename(work: Path, path: Path) -> None:
    try:
        work.rename(path)
    except OSError:  # somebody made it meanwhile
        raise _taken(path) from None
    _sync(path.parent)


def _taken(path: Path) -> InvalidPayload:
    return InvalidPayload(f"{printable(path.name)} exists already; choose another folder")


def _write_bundles(work: Path, leaves: Iterable[bytes], *, begin: int, size: int) -> Iterator[bytes]:
    """Write the bundles as their entries pass, and yield the leaf hashes."""
    source, place = iter(leaves), begin
    while entries := list(islice(source, WIDTH)):
        if place + len(entries) > size:
            raise InvalidProof(f"there are more entries than the {size} of the checkpoint")
        if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
            raise InvalidProof(f"an entry after number {place} is longer than {MAX_ENTRY_BYTES} bytes")
        _write_file(work / Bundle(place // WIDTH, len(entries)).path, bundle_bytes(entries))
        place += len(entries)
        yield from map(leaf_hash, entries)
    if place != size:
        raise InvalidProof(f"there are entries up to {place} only, and the checkpoint is of {size}")


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse(finding: Finding) -> NoReturn:
    raise InvalidProof(f"the entries are not those of the checkpoint, or the disk did not keep them: {finding}")


def _nothing(tile: Tile) -> bytes:
    raise ValueError(f"{tile.path} is not there")
