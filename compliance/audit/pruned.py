"""How far a log was pruned: below its boundary entries may be gone, for a signed entry of the log says so."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from bson.raw_bson import RawBSONDocument

from compliance.audit.checkpoint import Checkpoint
from compliance.audit.head import find_head
from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import Frontier, prove_consistency, verify_consistency
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.stored import find_stored_fault, read_stored, stored_entries
from compliance.audit.trust import Trust
from compliance.errors import InvalidProof, MalformedProof, UnknownName
from compliance.mongo import Databases, Document, driver_errors

PRUNED = "log.pruned"


def find_boundary(databases: Databases, log: str, trust: Trust) -> int:
    """Return the index of *log* below which entries may be gone, 0 where none are; a read-only operation."""
    return Boundary(databases=databases, log=log, trust=trust).find()


@dataclass(slots=True, kw_only=True)
class Boundary:
    """Finds the boundary of one log, again and again while it may be moved.

    An entry counts that a known writer signed, that is sealed or too young for that, and that names the root of the
    tree up to the boundary: whoever writes the log anew cannot say that what is missing was pruned.
    """

    databases: Databases
    log: str
    trust: Trust
    _known: dict[str, bool] = field(default_factory=dict)

    def find(self) -> int:
        """Return the index below which entries may be gone."""
        claims = sorted(self._claims(), key=lambda claim: -claim.below)
        return next((claim.below for claim in claims if self._counts(claim)), 0)

    def _claims(self) -> Iterator["_Claim"]:
        query = {"entity_type": "log", "entity_id": self.log, "action": PRUNED}
        with driver_errors():
            for raw in stored_entries(self.databases).find(query):
                claim = _read_claim(raw)
                if claim is not None:
                    yield claim

    def _counts(self, claim: "_Claim") -> bool:
        if find_stored_fault(claim.raw, self.trust) is not None:
            return False
        id_ = str(claim.entry["_id"])  # which names what it says, for a writer signed both
        if id_ not in self._known:
            head = find_head(self._seals, self.trust, self.log)
            is_of_tree = head is not None and self._is_beginning(claim, head)
            if not (is_of_tree and self._is_in_time(claim.entry)):
                return False  # it may count once more is signed
            self._known[id_] = True
        return True

    @property
    def _seals(self) -> Seals:
        return Seals(self.databases)

    def _is_beginning(self, claim: "_Claim", head: Checkpoint) -> bool:
        """Whether the tree that *claim* names is the beginning of the one that was signed."""
        if claim.below > head.size:
            return False
        try:
            proof = prove_consistency(claim.below, head.size, node=self._seals.nodes(self.log, head.size))
            verify_consistency(proof, first=claim.below, first_root=claim.root, second=head.size, second_root=head.root)
        except (InvalidProof, ValueError):
            return self._is_beginning_by_leaves(claim, head)
        return True

    def _is_beginning_by_leaves(self, claim: "_Claim", head: Checkpoint) -> bool:
        """The same where the stored tiles do not show it: by all leaves, as batches hold them."""
        tree, root = Frontier(), b""
        try:
            for batch in self._seals.batches(self.log):
                if batch.start != tree.size or tree.size >= head.size:
                    break
                if tree.size < claim.below <= batch.end:
                    root = tree.extended(batch.leaves[: claim.below - tree.size]).root
                tree = tree.extended(batch.leaves[: head.size - tree.size])
        except MalformedProof:
            return False
        return root == claim.root and tree.root == head.root

    def _is_in_time(self, entry: Document) -> bool:
        """Whether *entry* is sealed with these bytes, or was written when no later one was."""
        log, created_at = str(entry["log"]), entry["created_at"]
        try:
            index = self._seals.index_of(entry)
            batch = self._seals.batch_with(log, index)
        except UnknownName:
            newest = next(self._seals.ids_since(log, None), None)
            is_young = newest is None or newest.sealed_at is None or created_at > newest.sealed_at - CLOCKS_APART
            return isinstance(created_at, datetime) and is_young
        except MalformedProof:
            return False
        return batch.leaves[index - batch.start] == entry_hash(entry)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What an entry says about a pruning; who signed it is not known yet."""

    raw: RawBSONDocument
    entry: Document
    below: int
    root: bytes


def _read_claim(raw: RawBSONDocument) -> _Claim | None:
    try:
        entry = read_stored(raw)
        below, root = entry["details"]["below"], bytes.fromhex(entry["details"]["root"])
    except (KeyError, TypeError, ValueError):
        return None
    return _Claim(raw, entry, below, root) if isinstance(below, int) and below > 0 else None
