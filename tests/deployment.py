"""One application database on the stack of the session, as each role sees it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from compliance.jobs.job import Job
from compliance.mongo import Databases, open_client
from compliance.roles import Role
from compliance.settings import Settings
from migrations.migrate import build_runner
from migrations.runner import Runner
from worker.addresses import Addresses
from worker.attempt import carry_out
from worker.embedded import Stack
from worker.intake import Message, receive, submit
from worker.services import Services, build_services, connect
from worker.tasks import JOBS
from worker.up import provision_stack


@dataclass
class Deployment:
    """A provisioned application database."""

    stack: Stack
    name: str
    cleanup: ExitStack
    settings: Settings
    published: list[Job] = field(default_factory=list)
    _open: dict[Role, Services] = field(default_factory=dict)
    _admin: Databases | None = None

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.settings, self.stack.endpoints)

    @property
    def admin(self) -> Databases:
        """The databases as the administrator: for arranging and looking, never for the code under test."""
        if self._admin is None:  # one client: a loop that waits asks for it often
            uri = self.stack.endpoints.mongodb_uri("admin", auth_source="admin")
            self._admin = Databases(self.cleanup.enter_context(open_client(uri, app_name="test")), self.name)
        return self._admin

    def services(self, role: Role = Role.WORKER) -> Services:
        """The services of a process that works as *role*."""
        if role not in self._open:
            services = build_services(self.addresses, role, publish=self.published.append)
            self.cleanup.callback(services.databases.client.close)
            self._open[role] = services
        return self._open[role]

    @property
    def worker(self) -> Databases:
        return self.services().databases

    @property
    def sender_uri(self) -> str:
        """The connection string of a service that may put requests into the outbox, and nothing else."""
        return self.addresses.mongodb_uri(Role.SENDER)

    def with_settings(self, **changes: Any) -> "Deployment":
        """The same database under other settings."""
        other = replace(self, settings=self.settings.model_copy(update=changes))
        other._open = {}
        return other

    def runner(self, databases: Databases | None = None, **changes: Any) -> Runner:
        lines: list[str] = []
        if databases is None:
            databases = connect(self.addresses, Role.MIGRATOR, app_name="test")
            self.cleanup.callback(databases.client.close)
        runner = build_runner(self.settings, databases, actor="test", report=lines.append)
        return replace(runner, **changes)

    def migrate(self) -> None:
        self.runner().up()

    def run(self, kind: str, values: Mapping[str, Any], request_id: str = "r-1") -> Job:
        """Send a message as a service would, carry it out in this process, and return the job."""
        receive(Message(kind=JOBS[kind], values=values, request_id=request_id), services=self.services())
        job = self.services().ledger.find(request_id)
        assert job is not None
        return job

    def carry_out(self, kind: str, values: Mapping[str, Any], request_id: str = "r-1", **services: Any) -> Job:
        """Carry out one attempt with changed services."""
        changed = replace(self.services(), **services)
        submit(JOBS[kind], values, request_id=request_id, origin="test", services=changed)
        carry_out(JOBS[kind], request_id, services=changed, on_progress=lambda _: None)  # type: ignore[arg-type]
        job = changed.ledger.find(request_id)
        assert job is not None
        return job

    def environ(self, home: Path) -> dict[str, str]:
        """The environment of a process that uses this database."""
        endpoints = self.stack.endpoints
        own = f"{self.name}_compliance"
        return {
            "MONGODB_DATABASE": self.name,
            "MONGODB_URI": endpoints.mongodb_uri(Role.WORKER.value, auth_source=own),
            "COMPLIANCE_MIGRATOR_URI": endpoints.mongodb_uri(Role.MIGRATOR.value, auth_source=own),
            "COMPLIANCE_SEALER_URI": endpoints.mongodb_uri(Role.SEALER.value, auth_source=own),
            "COMPLIANCE_AUDITOR_URI": endpoints.mongodb_uri(Role.AUDITOR.value, auth_source=own),
            "COMPLIANCE_SENDER_URI": self.sender_uri,
            "COMPLIANCE_ARCHIVER_URI": endpoints.mongodb_uri(Role.ARCHIVER.value, auth_source=own),
            "COMPLIANCE_WRITER_KEY": self.addresses.writer("test").key.skey,
            "COMPLIANCE_LOG_KEY": self.addresses.log_key().skey,
            "REDIS_URL": endpoints.redis_url,
            "COMPLIANCE_HOME": str(home),
            "COMPLIANCE_TRANSFER_DIR": str(home / "transfer"),
        }

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        """Audit entries, in the order in which they were written."""
        found = self.admin.audit["audit_log"].find(query)
        return sorted(found, key=lambda entry: (entry["created_at"], entry["action"]))


def provision_database(stack: Stack, name: str, cleanup: ExitStack) -> Deployment:
    home = stack.home / name
    settings = Settings.model_validate(
        {
            "MONGODB_DATABASE": name,
            "REDIS_URL": SecretStr(stack.endpoints.redis_url),
            "COMPLIANCE_TRANSFER_DIR": home / "transfer",
            "COMPLIANCE_BATCH_DOCS": 50,
        }
    )
    provision_stack(settings, stack.endpoints)
    deployment = Deployment(stack, name, cleanup, settings)
    cleanup.callback(_drop, deployment)
    return deployment


def _drop(deployment: Deployment) -> None:
    uri = deployment.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    with open_client(uri, app_name="test") as client:
        databases = Databases(client, deployment.name)
        databases.compliance.command("dropAllUsersFromDatabase")
        for role in Role:
            client.admin.command("dropRole", f"{role.value}@{deployment.name}")
        drop(databases)


def drop(admin: Databases) -> None:
    """Drop the three databases at once, for each waits for the server."""
    names = [database.name for database in (admin.app, admin.audit, admin.compliance)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(admin.client.drop_database, names))


__all__ = ["Deployment", "Stack", "provision_database"]
