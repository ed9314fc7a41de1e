"""Export the sealed log as a segment: a folder that verifies alone, with nothing of the database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from bson.raw_bson import RawBSONDocument

from compliance.audit.checkpoint import Checkpoint
from compliance.audit.head import present_log, signed_tree
from compliance.audit.leaf import stored_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.pruned import find_boundary
from compliance.audit.seals import Seals
from compliance.audit.segment import write_segment
from compliance.audit.stored import read_stored, stored_entries, stored_id
from compliance.audit.tiles import WIDTH
from compliance.audit.trust import Trust
from compliance.audit.verification import Fault, Finding
from compliance.errors import IntegrityError, InvalidPayload, TransientError
from compliance.mongo import Databases, driver_errors

BATCH_ENTRIES = 1024

Progress = Callable[[int, int], None]
"""Told how many entries were read, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        begin: The first entry; whoever verifies the folder has to know it from here.
        checkpoint: What was signed; its size is the end.
    """

    begin: int
    checkpoint: Checkpoint


def export_log(
    databases: Databases,
    trust: Trust,
    *,
    path: Path,
    log: str | None = None,
    begin: int | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> Exported:
    """Write what is signed of a log as the new folder *path*; memory stays flat.

    Every entry is compared with the hash that was sealed, and all of them with the root hash that was signed.

    Args:
        databases: Reached with rights to read the audit database.
        trust: Whose signatures count.
        path: The folder to make; the one above it has to be there.
        log: The name of the log; by default that of the present year.
        begin: The first entry, a multiple of 256; by default the first one that was not pruned.
        on_progress: Told every now and then.

    Raises:
        UnknownName: When nothing of such a log is signed.
        InvalidPayload: When *path* is there already, or there cannot be a segment from *begin* on.
        IntegrityError: When an entry is not as it was sealed; nothing is written then.
    """
    seals = Seals(databases)
    log = log if log is not None else present_log(seals, trust)
    tree = signed_tree(seals, trust, log)
    begin = _begin(find_boundary(databases, log, trust), begin, tree.size)
    write_segment(
        path,
        leaves=_leaves(databases, trust, tree, begin=begin, on_progress=on_progress),
        checkpoint=seals.checkpoints.cosigned(log, tree.size, known=trust.witnesses) or b"",
        begin=begin,
        read=partial(seals.tile, log),
    )
    return Exported(begin=begin, checkpoint=tree)


def _begin(boundary: int, begin: int | None, size: int) -> int:
    if boundary and boundary == size:
        raise InvalidPayload(f"all {size} entries were pruned; there is nothing to export")
    if begin is None:
        return boundary - boundary % WIDTH
    if begin < boundary:
        raise InvalidPayload(f"--from: entries below {boundary} were pruned; what is left begins there")
    if begin % WIDTH or begin >= size:
        raise InvalidPayload(f"--from: expected a multiple of {WIDTH} below {size}, the number of signed entries")
    return begin


def _leaves(
    databases: Databases, trust: Trust, tree: Checkpoint, *, begin: int, on_progress: Progress
) -> Iterator[bytes]:
    """Yield the bytes of the entries from *begin* on, each as it was sealed."""
    sealed, index = _sealed(Seals(databases), tree, begin), begin
    log = stored_entries(databases)
    while chunk := list(islice(sealed, BATCH_ENTRIES)):
        with driver_errors():
            found = {stored_id(raw): raw for raw in log.find({"_id": {"$in": [id_ for id_, _ in chunk]}})}
        if len(found) < len(chunk) and find_boundary(databases, tree.origin, trust) > index:
            raise TransientError("the log was pruned meanwhile; export again")
        for id_, leaf in chunk:
            yield _bytes_of(found.get(id_), leaf, f"entry {id_} ({tree.origin} {index})")
            index += 1
        on_progress(index - begin, tree.size - begin)


def _sealed(seals: Seals, tree: Checkpoint, begin: int) -> Iterator[tuple[str, bytes]]:
    """Yield id and leaf hash of the entries from *begin* on."""
    first = seals.batch_with(tree.origin, begin).start
    for batch in seals.batches(tree.origin, start=first):
        for index, pair in enumerate(zip(batch.ids, batch.leaves, strict=True), batch.start):
            if begin <= index < tree.size:
                yield pair
        if batch.end >= tree.size:
            return


def _bytes_of(raw: RawBSONDocument | None, leaf: bytes, what: str) -> bytes:
    if raw is None:
        raise _refused(Fault.MISSING, what, "it was sealed and is gone")
    try:
        found = stored_bytes(read_stored(raw))
    except (TypeError, ValueError):
        found = b""
    if leaf_hash(found) != leaf:
        raise _refused(Fault.MODIFIED, what, "its bytes are not those that were sealed")
    return found


def _refused(fault: Fault, what: str, why: str) -> IntegrityError:
    return IntegrityError(f"the log is not as it was sealed, and nothing is exported: {Finding(fault, what, why)}")
