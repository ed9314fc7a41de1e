"""A sealed log that is long enough for several bundles, and a folder that it is exported to."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from deployment import Deployment, provision_database
from sealed import SealedLog, an_entry
from signing import signed
from waiting import wait_until

from compliance.audit.export import Exported, export_log
from compliance.audit.prune import Pruning, plan_pruning
from compliance.audit.pruned import PRUNED, find_boundary
from compliance.audit.segment import SegmentReport, verify_segment
from compliance.mongo import Databases, Document
from compliance.roles import Role
from worker.embedded import Stack

SIZE = 600
BELOW = 512


@dataclass
class ExportedLog:
    """A log of `SIZE` sealed entries, and where it is exported to."""

    sealed: SealedLog
    home: Path
    log: str = field(init=False)
    ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.write(SIZE)
        self.log = self.sealed.log
        self.ids = [id_ for batch in self.sealed.seals.batches(self.log) for id_ in batch.ids]

    @property
    def deployment(self) -> Deployment:
        return self.sealed.deployment

    @property
    def folder(self) -> Path:
        return self.home / "audit"

    @property
    def entries(self) -> Any:
        return self.deployment.admin.audit["audit_log"]

    @property
    def later(self) -> datetime:
        """A time at which all entries are old."""
        return self.deployment.admin.server_time() + timedelta(hours=1)

    @property
    def boundary(self) -> int:
        return find_boundary(self.deployment.admin, self.log, self.deployment.addresses.trust())

    def write(self, count: int) -> None:
        """Write entries in one go, as workers would one by one, and seal them."""
        size = self.sealed.size
        writer = self.deployment.addresses.writer("test")
        self.entries.insert_many(signed(*(an_entry(self.deployment) for _ in range(count)), writer=writer))
        self.seal(size + count)

    def seal(self, size: int) -> None:
        with self.sealed.running():
            wait_until(lambda: self.sealed.size >= size, timeout=60, what=f"{size} entries are sealed")

    def export(self, **changes: Any) -> Exported:
        databases = self.deployment.services(Role.AUDITOR).databases
        options = {"path": self.folder} | changes
        return export_log(databases, self.deployment.addresses.trust(), **options)

    def verify_files(self, path: Path | None = None, *, begin: int = 0) -> SegmentReport:
        """Verify as somebody who has the key of the log and no database."""
        policy = self.deployment.addresses.trust().policy(self.log)
        return verify_segment(path or self.folder, policy=policy, begin=begin, processes=1)

    def plan(self, databases: Databases | None = None, **changes: Any) -> Pruning:
        options = {"log": self.log, "below": BELOW, "path": self.folder, "older_than": self.later} | changes
        databases = databases or self.deployment.services(Role.ARCHIVER).databases
        return plan_pruning(databases, self.deployment.addresses.trust(), **options)

    def prune(self, databases: Databases | None = None, **changes: Any) -> int:
        """Prune, a bundle in each transaction."""
        return self.plan(databases, **changes).run(self.deployment.services().clock, step=256)

    def pruned(self) -> list[Document]:
        """What the log says about its prunings."""
        return self.deployment.entries(action=PRUNED)

    def left(self) -> list[str]:
        """The ids that are still there, of those that there were."""
        found = {entry["_id"] for entry in self.entries.find({"_id": {"$in": self.ids}}, {"_id": 1})}
        return [id_ for id_ in self.ids if id_ in found]


@contextmanager
def an_exported_log(stack: Stack, home: Path) -> Iterator[ExportedLog]:
    """A log of its own, not exported yet."""
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        yield ExportedLog(SealedLog(deployment, home / "guard.json"), home)
