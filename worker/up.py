"""The whole system in one place: servers where no variable names any, migrations, and all processes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from compliance.datamap.model import load_data_map
from compliance.mongo import Databases, open_client
from compliance.provision import provision
from compliance.roles import Role
from compliance.settings import Settings
from migrations.migrate import build_runner
from worker.addresses import Addresses
from worker.embedded import Endpoints, Stack, open_stack, resolve_home
from worker.processes import PROCESSES, Group, run_processes
from worker.schedule import load_schedules
from worker.services import connect, load_keyring

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A running system."""

    addresses: Addresses
    group: Group
    stack: Stack | None
    flower_url: str
    logs: Path

    def check(self, say: Say) -> None:
        """Return if all is alive, a server that was killed after it is started again.

        MUST be called in the main thread.

        Raises:
            StoreUnavailable: When a process ended, or a server does not come back.
        """
        for server in self.stack.servers if self.stack else ():
            if server.pid is None:
                say(f"{server.spec.name} ended; starting it again")
                server.start()
        self.group.check()

    def introduce(self, say: Say) -> None:
        """Say where things are and how to ask for work."""
        servers = "embedded, for development only" if self.addresses.endpoints else "as configured"
        for line in (
            f"compliance-worker is up ({', '.join(PROCESSES)}; servers: {servers})",
            f"  Flower    {self.flower_url}",
            f"  logs      {self.logs}",
            "  ask for an erasure, in another terminal:",
            "            compliance erasure request SUBJECT_ID --wait",
            "  or from any service, with any Celery client:",
            '            app.send_task("compliance.erasure.request",',
            '                          kwargs={"subject_id": "...", "request_id": "..."},',
            '                          queue="compliance.erasure")',
            "  stop with Ctrl-C",
        ):
            say(line)


@contextmanager
def running_system(addresses: Addresses, *, environ: Mapping[str, str], flower_port: int, say: Say) -> Iterator[System]:
    """Run the whole system until the block ends.

    MUST be called in the main thread.

    Args:
        addresses: Where servers are, as far as the settings say so.
        environ: The environment of the processes.
        flower_port: Where Flower listens, on loopback.
        say: Shows a line to a person.

    Raises:
        ConfigurationError: When schedules or signing keys are wrong; nothing was started.
    """
    settings = addresses.settings
    load_schedules(settings.schedules)  # what the processes would end of, before anything is started
    load_keyring(settings)
    home = resolve_home(settings.home)
    logs = home / "log"
    logs.mkdir(mode=0o700, exist_ok=True)
    stack: Stack | None = None
    with ExitStack() as cleanup:
        if settings.mongodb_uri is None or settings.redis_url is None:
            say(f"starting MongoDB and Valkey in {home}")
            stack = cleanup.enter_context(
                open_stack(
                    home,
                    mongod=settings.mongod,
                    environment=settings.environment,
                    prepare=lambda endpoints: provision_stack(settings, endpoints),
                )
            )
            addresses = Addresses(settings, stack.endpoints)
        migrate(addresses, say)
        group = cleanup.enter_context(
            run_processes(
                tuple(PROCESSES),
                environ={**environ, **settings.to_environ(), "COMPLIANCE_HOME": str(home)},
                logs=logs,
                extra={"flower": (f"--port={flower_port}",)},
                own=own_environ(settings),
            )
        )
        yield System(
            addresses=addresses, group=group, stack=stack, flower_url=f"http://127.0.0.1:{flower_port}", logs=logs
        )


def own_environ(settings: Settings) -> dict[str, dict[str, str]]:
    """Return what each process has alone where all run on one machine: its heartbeat file and its port for metrics.

    The worker listens at the port of *settings*, the watcher at the next one; the files end in the names of the
    processes.
    """
    own: dict[str, dict[str, str]] = {name: {} for name in PROCESSES}
    if settings.heartbeat_file is not None:
        for name, environ in own.items():
            environ["COMPLIANCE_HEARTBEAT_FILE"] = f"{settings.heartbeat_file}-{name}"
    if settings.metrics_port is not None:
        own["watcher"]["COMPLIANCE_METRICS_PORT"] = str(settings.metrics_port + 1)
    return own


def provision_stack(settings: Settings, endpoints: Endpoints) -> None:
    """Create the roles and users of the application in the embedded stack, with its generated passwords."""
    data_map = load_data_map(settings.data_map)
    with open_client(endpoints.mongodb_uri("admin", auth_source="admin"), app_name="compliance-provision") as client:
        provision(
            Databases(client, settings.mongodb_database),
            grants=data_map.grants(),
            passwords={role: endpoints.password(role.value) for role in Role},
        )


def migrate(addresses: Addresses, say: Say) -> None:
    """Apply what is pending, as the migrator."""
    databases = connect(addresses, Role.MIGRATOR, app_name="compliance-migrations")
    with databases.client:
        applied = build_runner(addresses.settings, databases, actor="up", report=lambda _: None).up()
    if applied:
        say(f"applied {len(applied)} migrations: {applied[0].name} … {applied[-1].name}")
