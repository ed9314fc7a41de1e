"""A deployment whose audit log is sealed, in threads of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bson import ObjectId
from deployment import Deployment
from waiting import wait_until

from compliance.audit.checkpoint import open_checkpoint
from compliance.audit.entry import Entry
from compliance.audit.guard import Guard
from compliance.audit.incident import Incident
from compliance.audit.seals import Seals
from compliance.audit.signed import find_fault
from compliance.audit.verification import Report, verify_log
from compliance.roles import Role
from worker.sealing import Sealing
from worker.services import connect


@dataclass
class SealedLog:
    """The audit log of a deployment, and what was said about it."""

    deployment: Deployment
    guard: Path
    incidents: list[Incident] = field(default_factory=list)

    @property
    def seals(self) -> Seals:
        return Seals(self.deployment.admin)

    @property
    def log(self) -> str:
        """The name of the only log."""
        (log,) = self.seals.logs()
        return log

    @property
    def size(self) -> int:
        """How many entries the last checkpoint covers, after a look at its signature."""
        note = self.seals.checkpoints.note(self.log) if self.seals.logs() else None
        if note is None:
            return 0
        return open_checkpoint(note, policy=self.deployment.addresses.trust().policy(self.log)).checkpoint.size

    def sealing(self, **changes: Any) -> Sealing:
        """What a watcher of its own runs."""
        services = self.deployment.services(Role.SEALER)
        databases = connect(self.deployment.addresses, Role.SEALER, app_name="test-sealer")
        self.deployment.cleanup.callback(databases.client.close)
        found = Sealing(
            services=replace(services, databases=databases),
            key=self.deployment.addresses.log_key(),
            guard=Guard(self.guard),
            alarm=self.incidents.append,
        )
        return replace(found, **changes)

    @contextmanager
    def running(self, *, sealers: int = 1, **changes: Any) -> Iterator[None]:
        """Seal for the block."""
        stop, failed = threading.Event(), []

        def run(sealing: Sealing) -> None:
            try:
                sealing.follow(stop.is_set)
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=run, args=(self.sealing(**changes),)) for _ in range(sealers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert failed == []

    def seal_all(self) -> int:
        """Seal what is there, and return the size."""
        count = self.count()
        with self.running():
            wait_until(lambda: self.size >= count, timeout=30, what=f"{count} entries are sealed")
        return self.size

    def verify(self, **options: Any) -> Report:
        """Verify as an auditor."""
        databases = self.deployment.services(Role.AUDITOR).databases
        options = {"now": databases.server_time()} | options
        return verify_log(databases, self.deployment.addresses.trust(), **options)

    def findings(self, **options: Any) -> list[tuple[str, str]]:
        """Kind and object of every finding."""
        return [(found.fault.value, found.what) for found in self.verify(**options).findings]

    def count_sealed(self) -> int:
        """How many entries batches hold, whatever is signed."""
        last = self.seals.last_batch(self.log)
        return last.end if last else 0

    def count(self) -> int:
        return self.deployment.admin.audit["audit_log"].count_documents({})

    def append(self, count: int = 1) -> list[str]:
        """Write entries, each in a transaction of its own; return their ids."""
        log = self.deployment.services().log
        entries = [an_entry(self.deployment) for _ in range(count)]
        for entry in entries:
            log.databases.transact(lambda session, entry=entry: log.append(entry, session=session))
        return [entry.id for entry in entries]


def faults_of_entries(deployment: Deployment) -> list[str]:
    """What is wrong with single entries."""
    found = (find_fault(entry, deployment.addresses.trust()) for entry in deployment.entries())
    return [fault for fault in found if fault is not None]


def an_entry(deployment: Deployment, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "event": str(ObjectId()),
        "entity_type": "user",
        "entity_id": ObjectId(),
        "action": "consent.granted",
        "created_at": deployment.services().clock.now(),
        "performed_by": "test",
        "details": {"type": "TERMS"},
    }
    return Entry(**(values | changes))


def in_parallel(*work: Callable[[], object]) -> None:
    """Do all of *work* at once; what one raises is raised."""
    failed: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise failed[0]
