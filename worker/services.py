"""What a job function works with, made once per process and after the fork."""

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from compliance.audit.log import AuditLog
from compliance.audit.trust import Trust
from compliance.clock import Clock, SystemClock
from compliance.datamap.model import DataMap, load_data_map
from compliance.datamap.pseudonym import Pseudonyms
from compliance.jobs.job import Job
from compliance.jobs.ledger import Ledger
from compliance.mongo import Databases, open_client
from compliance.roles import Role
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.signature import Keyring
from worker.telemetry import Monitor

WRITERS = (Role.WORKER, Role.MIGRATOR, Role.SEALER, Role.ARCHIVER)  # who may append to the audit log
Publish = Callable[[Job], None]
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything outside a job function that it may use.

    Attributes:
        databases: Reached as the user of this process.
        publish: Rings the doorbell for a job that is in the ledger; a failure to ring is healed by the sweeper.
        should_stop: Whether this process is shutting down.
        connect_as: Opens the databases as another role, where a kind of work needs its rights.
        trust: Whose signatures on the audit log are believed.
        monitor: The schedule that a job is a run of, where Sentry watches it.
        keyring: The services whose messages are taken; None where messages need no signature.
        pseudonyms: How people are named, where the data map has a personal root key; for worker and migrator.
    """

    settings: Settings
    databases: Databases
    data_map: DataMap
    clock: Clock
    transfer_dir: Path
    publish: Publish
    should_stop: Callable[[], bool]
    connect_as: Callable[[Role], Databases]
    trust: Trust
    monitor: Callable[[Job], Monitor | None] = lambda _: None
    keyring: Keyring | None = None
    pseudonyms: Pseudonyms | None = None

    @property
    def ledger(self) -> Ledger:
        """The jobs."""
        return Ledger(self.databases)

    @property
    def log(self) -> AuditLog:
        """The audit log."""
        return AuditLog(self.databases)

    @property
    def lease(self) -> timedelta:
        """How long a job may be silent before another worker takes it over."""
        return self.settings.lease

    @property
    def owner(self) -> str:
        """A name to hold one lease under: never the same twice, so that a successor cannot be mistaken."""
        return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def connect(addresses: Addresses, role: Role, *, app_name: str) -> Databases:
    """Return the databases of the application as the user of *role*; it connects at the first use."""
    writer = addresses.writer(app_name) if role in WRITERS else None
    client = open_client(addresses.mongodb_uri(role), app_name=app_name)
    return Databases(client, addresses.settings.mongodb_database, writer)


def load_keyring(settings: Settings) -> Keyring | None:
    """Return the keys of the services that may send, None where messages need no signature.

    Raises:
        ConfigurationError: Where they cannot be read.
    """
    return None if settings.signing_keys is None else Keyring.parse(settings.signing_keys.get_secret_value())


def build_services(
    addresses: Addresses, role: Role, *, publish: Publish, should_stop: Callable[[], bool] = lambda: False
) -> Services:
    """Return the services of a process that works as *role*."""
    data_map = load_data_map(addresses.settings.data_map)
    return Services(
        settings=addresses.settings,
        databases=connect(addresses, role, app_name=role.value),
        data_map=data_map,
        clock=SystemClock(),
        transfer_dir=addresses.transfer_dir(),
        publish=publish,
        should_stop=should_stop,
        connect_as=lambda other: connect(addresses, other, app_name=other.value),
        trust=addresses.trust(),
        keyring=load_keyring(addresses.settings),
        pseudonyms=_pseudonyms(addresses, role, data_map),
    )


def _pseudonyms(addresses: Addresses, role: Role, data_map: DataMap) -> Pseudonyms | None:
    """Return how *role* names people; migrator and watcher do without a key, and then recognise nobody."""
    if role is Role.WORKER:
        return addresses.pseudonyms(data_map)
    return addresses.find_pseudonyms(data_map, role) if role in (Role.MIGRATOR, Role.SEALER) else None


class PerProcess:
    """Makes its services on the first use in each process: a client does not survive a fork.

    What *check* raises leaves them unmade, so that the next use checks again.
    """

    def __init__(self, make: Callable[[], Services], *, check: Callable[[Services], None] = lambda _: None) -> None:
        self._make = make
        self._check = check
        self._made: tuple[int, Services] | None = None

    def __call__(self) -> Services:
        """Return the services of this process."""
        if self._made is None or self._made[0] != os.getpid():
            made = self._make()
            try:
                self._check(made)
            except BaseException:
                made.databases.client.close()
                raise
            self._made = (os.getpid(), made)
        return self._made[1]
