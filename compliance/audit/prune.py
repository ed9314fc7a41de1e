"""Remove old entries from the database, once they are in a folder that verifies alone.

Batches, tiles and checkpoints stay, so root hashes and proofs stay what they were; only the bytes of the entries are
elsewhere. An entry is removed only where the folder holds just its bytes, in a transaction that appends a signed entry
which says so. Interrupted, it goes on from the last such entry; of two at once, one is faster in each step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from bson.raw_bson import RawBSONDocument

from compliance.audit.checkpoint import Checkpoint
from compliance.audit.entry import Entry
from compliance.audit.head import signed_tree
from compliance.audit.leaf import EPOCH, stored_bytes
from compliance.audit.log import AuditLog
from compliance.audit.merkle import prove_consistency, read_frontier, verify_consistency
from compliance.audit.pruned import PRUNED, find_boundary
from compliance.audit.seals import Seals
from compliance.audit.segment import Segment, open_segment, read_entry, summed, verify_segment
from compliance.audit.stored import read_stored, stored_entries, stored_id
from compliance.audit.tiles import WIDTH
from compliance.audit.trust import Trust
from compliance.clock import Clock
from compliance.errors import IntegrityError, InvalidPayload, InvalidProof, MalformedProof
from compliance.mongo import Databases, Session
from compliance.roles import AUDIT_LOG

STEP = 2 * WIDTH  # deletes of one transaction
KEPT = (PRUNED, "log.closed")  # what later verifications ask for, and the sealer records but once
ACTOR = "cli"

Progress = Callable[[int, int], None]
"""Told how many entries are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What can be removed: entries of *segment*, each known to be in the folder and in the tree that was signed.

    Attributes:
        begin: The first one; the log was pruned below.
        below: The boundary afterwards; nothing is to be removed where it is not above *begin*.
        entries: How many would go.
        tree: What was signed last in the database.
        by: Who prunes, for the audit log.
    """

    databases: Databases
    trust: Trust
    segment: Segment
    begin: int
    below: int
    entries: int
    tree: Checkpoint
    by: str = ACTOR

    def run(self, clock: Clock, *, step: int = STEP, on_progress: Progress = lambda _done, _total: None) -> int:
        """Remove the entries, *step* in a transaction, and return how many went.

        Raises:
            IntegrityError: When one is not as it was sealed: nothing is removed from there on.
            ConfigurationError: When the user of the databases may not remove entries.
        """
        begin, removed = self.begin, 0
        while begin < self.below:
            below = min(begin + step, self.below)
            count_ = self._remove(begin, below, clock.now())
            if count_ is None:
                begin = self._caught_up(begin)
                continue
            begin, removed = below, removed + count_
            on_progress(begin - self.begin, self.below - self.begin)
        return removed

    def _remove(self, begin: int, below: int, now: datetime) -> int | None:
        """Remove the entries from *begin* to *below*; None where another pruning did."""
        leaves = {str(read_entry(leaf)["_id"]): leaf for leaf in self.segment.entries(begin, below)}
        if len(leaves) < below - begin:
            raise IntegrityError(f"an entry of {self.tree.origin} was sealed twice between {begin} and {below}")
        going = [id_ for id_, leaf in leaves.items() if _goes(leaf)]
        entry = Entry(
            event=f"{self.tree.origin}#pruned {begin}",  # of two prunings from here on, one can record it
            entity_type="log",
            entity_id=self.tree.origin,
            action="log.pruned",
            created_at=now,
            performed_by=self.by,
            details={"begin": begin, "below": below, "entries": len(going), "root": self._root(below).hex()},
        )

        def work(session: Session) -> int | None:
            log = AuditLog(self.databases)
            if log.holds(entry, session=session):
                return None
            self._compare(leaves, begin, session)
            entries = self.databases.audit[AUDIT_LOG]
            deleted = entries.delete_many({"_id": {"$in": going}}, session=session).deleted_count
            log.append(entry, session=session)
            return deleted

        return self.databases.transact(work)

    def _compare(self, leaves: dict[str, bytes], begin: int, session: Session) -> None:
        """Return if the database holds just these entries: pruning must not remove traces."""
        entries = stored_entries(self.databases)
        found = {stored_id(raw): raw for raw in entries.find({"_id": {"$in": list(leaves)}}, session=session)}
        for index, (id_, leaf) in enumerate(leaves.items(), begin):
            if not _is_same(found.get(id_), leaf):
                raise IntegrityError(
                    f"entry {id_} ({self.tree.origin} {index}) is not in the database as it was sealed; nothing was "
                    f"removed from {begin} on: see `compliance audit verify`"
                )

    def _root(self, size: int) -> bytes:
        node, tree = Seals(self.databases).nodes(self.tree.origin, self.tree.size), self.tree
        root = read_frontier(size, node).root
        proof = prove_consistency(size, tree.size, node=node)
        verify_consistency(proof, first=size, first_root=root, second=tree.size, second_root=tree.root)
        return root

    def _caught_up(self, begin: int) -> int:
        boundary = find_boundary(self.databases, self.tree.origin, self.trust)
        if boundary <= begin:
            raise IntegrityError(f"an entry says that {self.tree.origin} was pruned from {begin} on, and is not ours")
        return boundary


def plan_pruning(
    databases: Databases,
    trust: Trust,
    *,
    log: str,
    below: int,
    path: Path,
    older_than: datetime,
    on_progress: Progress = lambda _done, _total: None,
) -> Pruning:
    """Return what can be removed of *log* below an index; a read-only operation.

    Args:
        databases: Reached with rights to read the audit database.
        trust: Whose signatures count.
        log: The name of the log of one year.
        below: A multiple of 256, at most the number of signed entries.
        path: The folder that `export_log` wrote.
        older_than: Entries since then have to stay.
        on_progress: Told while the folder is verified.

    Raises:
        UnknownName: When nothing of such a log is signed.
        InvalidPayload: When *below* is impossible, the folder does not reach so far, or an entry is too young.
        IntegrityError: When the folder does not verify, or is of another tree than the database.
    """
    tree, boundary = signed_tree(Seals(databases), trust, log), find_boundary(databases, log, trust)
    if below <= 0 or below % WIDTH or below > tree.size:
        last = tree.size - tree.size % WIDTH
        raise InvalidPayload(f"--below: expected a multiple of {WIDTH}, at most {last}: {tree.size} entries are signed")
    segment = open_segment(path)
    _verify(segment, path, trust, log=log, boundary=boundary, below=below, on_progress=on_progress)
    _refuse_other_tree(segment.tree, tree, Seals(databases))
    entries = _count(segment, boundary, below, older_than)
    return Pruning(
        databases=databases, trust=trust, segment=segment, begin=boundary, below=below, entries=entries, tree=tree
    )


def _verify(
    segment: Segment, path: Path, trust: Trust, *, log: str, boundary: int, below: int, on_progress: Progress
) -> None:
    """Return if the folder verifies alone, is of *log*, and holds the entries from *boundary* to *below*."""
    begin, size = segment.begin(), segment.tree.size
    if segment.tree.origin != log:
        raise InvalidPayload(f"--exported: the folder is of another log than {log}")
    if begin > boundary or size < below:
        raise InvalidPayload(f"--exported: the folder does not hold all entries from {boundary} to {below - 1}")
    report = verify_segment(path, policy=trust.policy(log), begin=begin, on_progress=summed(on_progress, size - begin))
    if not report.is_ok:
        raise IntegrityError(f"the folder does not verify: {report.findings[0]} ({report.found} findings)")


def _refuse_other_tree(folder: Checkpoint, database: Checkpoint, seals: Seals) -> None:
    """Return if the tree of the folder is the beginning of that of the database, by what both signed."""
    if folder.size > database.size:
        raise IntegrityError(
            f"the folder has {folder.size} signed entries, and the database {database.size}: was a backup restored?"
        )
    proof = prove_consistency(folder.size, database.size, node=seals.nodes(database.origin, database.size))
    try:
        verify_consistency(
            proof, first=folder.size, first_root=folder.root, second=database.size, second_root=database.root
        )
    except InvalidProof:
        raise IntegrityError("the folder is of another tree than the database; see `compliance audit verify`") from None


def _count(segment: Segment, begin: int, below: int, older_than: datetime) -> int:
    """Return how many entries would go, once all are known to be old enough."""
    going = 0
    for index, leaf in enumerate(segment.entries(begin, below), begin):
        created_at = _created_at(leaf)
        if created_at >= older_than:
            raise InvalidPayload(
                f"--below: entry {index} is of {created_at:%Y-%m-%d} and has to stay, as has all since "
                f"{older_than:%Y-%m-%d} (COMPLIANCE_AUDIT_RETENTION_DAYS); at most {index - index % WIDTH} is possible"
            )
        going += _goes(leaf)
    return going


def _is_same(raw: RawBSONDocument | None, leaf: bytes) -> bool:
    try:
        return raw is not None and stored_bytes(read_stored(raw)) == leaf
    except (TypeError, ValueError):
        return False


def _goes(leaf: bytes) -> bool:
    return read_entry(leaf).get("action") not in KEPT


def _created_at(leaf: bytes) -> datetime:
    found = read_entry(leaf).get("created_at")
    milliseconds = found.get("$date") if isinstance(found, dict) else None
    if not isinstance(milliseconds, int):
        raise MalformedProof("an entry of the folder has no time")
    return EPOCH + timedelta(milliseconds=milliseconds)
