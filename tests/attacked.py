"""A sealed log that somebody with the rights of the database's administrator attacks."""

import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployment import provision_database
from sealed import SealedLog, an_entry
from signing import signed

from compliance.audit.batch import Batch, from_document, to_document
from compliance.audit.checkpoint import Checkpoint, sign_checkpoint
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import Frontier
from compliance.audit.writer import Writer
from compliance.mongo import Document
from worker.embedded import Stack

SIZE = 12
STRANGER = SigningKey.from_seed("writer", bytes(32))


@dataclass
class Scene:
    """A sealed log of a dozen entries in three batches, and a checkpoint of each that was kept elsewhere."""

    sealed: SealedLog
    ids: list[str]
    kept: list[bytes]

    @property
    def audit(self) -> Any:
        return self.sealed.deployment.admin.audit

    @property
    def entries(self) -> Any:
        return self.audit["audit_log"]

    def entry(self, index: int) -> Document:
        found: Document = self.entries.find_one({"_id": self.ids[index]})
        return found

    def apply_ops(self, **operation: Any) -> None:
        """Write as administrators do who know how to leave no change event."""
        operation = {"ns": f"{self.audit.name}.audit_log"} | operation
        self.sealed.deployment.admin.client.admin.command({"applyOps": [operation]})

    def drop_tail(self) -> None:
        """Remove the last batch with all that belongs to it."""
        last = from_document(self.audit["audit_batches"].find_one(sort={"_id": -1}))
        self.entries.delete_many({"_id": {"$in": list(last.ids)}})
        self.audit["audit_batches"].delete_one({"_id": {"log": last.log, "start": last.start}})
        self.audit["audit_checkpoints"].delete_one({"_id": {"log": last.log, "size": last.end}})

    def batch(self, number: int) -> Batch:
        return list(self.sealed.seals.batches(self.sealed.log))[number]

    def write_batch(self, batch: Batch) -> None:
        document = to_document(batch)
        self.audit["audit_batches"].replace_one({"_id": document["_id"]}, document, upsert=True)

    def rewrite(self, documents: list[Document], keys: list[SigningKey]) -> None:
        """Write the whole log anew over *documents*, with the keys of the log."""
        log, first = self.sealed.log, self.batch(0)
        leaves = tuple(map(entry_hash, documents))
        frontier = Frontier().extended(leaves)
        for name in ("audit_log", "audit_batches", "audit_checkpoints"):
            self.audit[name].delete_many({})
        self.entries.insert_many(documents)
        batch = replace(first, ids=tuple(one["_id"] for one in documents), leaves=leaves, frontier=frontier)
        self.write_batch(batch)
        note = sign_checkpoint(Checkpoint(origin=log, size=frontier.size, root=frontier.root), keys)
        self.audit["audit_checkpoints"].insert_one({"_id": {"log": log, "size": frontier.size}, "note": note})


def arrange(stack: Stack, cleanup: ExitStack, home: Path) -> Scene:
    deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
    sealed = SealedLog(deployment, home / "guard.json")
    ids: list[str] = []
    kept = []
    for _ in range(3):
        ids += sealed.append(SIZE // 3)
        sealed.seal_all()
        kept.append(sealed.seals.checkpoints.note(sealed.log) or b"")
    assert list(sealed.seals.batches(sealed.log))[-1].end == SIZE
    return Scene(sealed, ids, kept)


def at(scene: Scene, index: int) -> str:
    return f"entry {scene.ids[index]} ({scene.sealed.log} {index})"


def forge(scene: Scene, key: SigningKey = STRANGER, **changes: Any) -> Document:
    trust = scene.sealed.deployment.addresses.trust()
    hour_ago = scene.sealed.deployment.services().clock.now() - timedelta(hours=1)
    (document,) = signed(
        an_entry(scene.sealed.deployment, created_at=hour_ago),
        writer=Writer(origin=trust.origin, key=key, process="x"),
    )
    return document | changes


def put_back(scene: Scene, index: int, document: Any) -> None:
    """Put *document* in the place of an entry."""
    scene.entries.delete_one({"_id": scene.ids[index]})
    scene.entries.insert_one(document, bypass_document_validation=not isinstance(document, dict))
