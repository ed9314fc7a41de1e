"""A database of its own for one script, migrated up to it and filled: where a test lets it run, and die."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from bson import json_util
from pydantic import SecretStr

from compliance.audit.own import build_writer
from compliance.datamap.model import load_data_map
from compliance.errors import ConfigurationError
from compliance.mongo import CODEC, Databases, Db, open_client
from compliance.provision import provision
from compliance.roles import Role, role_name
from compliance.settings import Settings
from migrations.admission import EVERYTHING
from migrations.context import Report
from migrations.discovery import discover
from migrations.graph import build_graph
from migrations.migrate import FOUNDATION, build_runner
from migrations.plan import ZERO, find_one
from migrations.promotion import ANYTHING
from migrations.revision import Revision
from migrations.runner import Runner
from migrations.wish import Wish
from worker.testing.state import State, read_state, restore

Seed = Callable[[Db], object]
BATCH_DOCS = 5  # small, so that there are many points at which to die
LEASE = "migration_lease"
OURS = "migration-test"
_JSON = json_util.JSONOptions(tz_aware=True, tzinfo=CODEC.tzinfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A MongoDB on which databases may be made.

    Attributes:
        admin_uri: The connection string of an administrator.
        settings: With the folder of scripts and the data map.
    """

    admin_uri: str = field(repr=False)  # holds a password, and pytest prints fixtures
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One database, and the scripts up to the one that is tested, in a line.

    Attributes:
        admin: For arranging and looking.
        databases: What the script runs with: as the migrator, with its rights alone.
        uri: The connection string of the migrator.
    """

    settings: Settings
    admin: Databases
    databases: Databases
    uri: str = field(repr=False)
    line: Sequence[Revision]

    @property
    def revision(self) -> Revision:
        """The script that is tested."""
        return self.line[-1]

    @property
    def before(self) -> str:
        """The target of a way back that undoes this script alone."""
        return ZERO if len(self.line) <= 2 and self.line[0].number == 0 else self.line[-2].name  # noqa: PLR2004

    def runner(self, report: Report = lambda _: None) -> Runner:
        """Return a runner that knows the line alone."""
        return runner_of(self.settings, self.databases, self.line, report)

    def up(self) -> None:
        """Apply the script."""
        self.runner().up(wish=Wish(only=self.revision.name))

    def down(self) -> None:
        """Undo the script, and drop what it created, with what is in it."""
        self.runner().down(self.before, drop_data=True)

    def forget(self) -> None:
        """Let the history not know that the script ran."""
        own = self.admin.compliance
        for name in ("migration_history", "migration_steps"):
            own[name].delete_many({"revision": self.revision.name})

    def state(self) -> State:
        """Return what the application's database holds."""
        return read_state(self.admin.app)

    def own_state(self) -> State:
        """Return what our own database holds, but for the lease, whose fence only grows."""
        return read_state(self.admin.compliance, without=(LEASE,))

    def restore(self, app: State, own: State) -> None:
        """Put everything back as it was, as if the script had never run."""
        restore(self.admin.app, app)
        restore(self.admin.compliance, own, without=(LEASE,))
        self.release()
        self.admin.compliance[LEASE].update_many({}, {"$set": {"checkpoint": {}, "takeovers": 0}})

    def release(self) -> None:
        """End what a process that was killed left behind: its transactions, and its lease."""
        user = {"user": Role.MIGRATOR.value, "db": self.admin.compliance.name}
        self.admin.client.admin.command("killAllSessions", [user])
        self.admin.compliance[LEASE].update_many({}, {"$set": {"state": "queued", "lease": None, "run_at": None}})


@contextmanager
def open_scene(server: Server, name: str, seed: Seed | None) -> Iterator[Scene]:
    """Make a database, apply what *name* depends on, and fill it; it is gone after the block.

    Raises:
        ConfigurationError: When the folder holds no such script, or it is number 000.
    """
    database = f"t_{secrets.token_hex(6)}"
    settings = server.settings.model_copy(
        update={"mongodb_database": database, "writer_key": SecretStr(secrets.token_hex(32)), "batch_docs": BATCH_DOCS}
    )
    line = line_to(settings.migrations, name)
    with open_client(server.admin_uri, app_name=OURS) as client:
        admin = Databases(client, database)
        uri = _provision(admin, settings, server)
        try:
            with open_client(uri.get_secret_value(), app_name=OURS) as own:
                databases = Databases(own, database, build_writer(settings, process=OURS))
                runner_of(settings, databases, line[:-1], lambda _: None).up()
                if seed is not None:
                    seed(admin.app)
                yield Scene(settings=settings, admin=admin, databases=databases, uri=uri.get_secret_value(), line=line)
        finally:
            _drop(admin)


def line_to(folder: Path, name: str) -> tuple[Revision, ...]:
    """Return the script *name* behind everything that it depends on, each depending on the one before."""
    graph = build_graph(discover(folder, foundation=FOUNDATION))
    wanted = find_one(graph, name)
    if wanted.number == 0:
        raise ConfigurationError("number 000 is ours: it is tested with the package")
    names = graph.with_ancestors([wanted.name, *(one.name for one in graph.revisions if one.number == 0)])
    line: list[Revision] = []
    for revision in (one for one in graph.revisions if one.name in names):
        line.append(replace(revision, depends_on=(line[-1].name,) if line else ()))
    return tuple(line)


def runner_of(settings: Settings, databases: Databases, line: Sequence[Revision], report: Report) -> Runner:
    """Return a runner over *line*, whatever rules and promotion say."""
    runner = build_runner(settings, databases, actor=OURS, report=report)
    return replace(runner, revisions=line, admission=EVERYTHING, gate=ANYTHING)


def read_files(*paths: Path) -> Seed:
    """Return a seed that inserts the documents of files.

    Args:
        *paths: Each named after its collection; Extended JSON, one document in a line, or one array.
    """

    def insert(database: Db) -> None:
        for path in paths:
            text = path.read_text(encoding="utf-8").strip()
            lines = text if text.startswith("[") else f"[{','.join(filter(str.strip, text.splitlines()))}]"
            documents = json_util.loads(lines, json_options=_JSON)
            if documents:
                database[path.stem].insert_many(documents)

    return insert


def _provision(admin: Databases, settings: Settings, server: Server) -> SecretStr:
    data_map = load_data_map(settings.data_map)
    password = secrets.token_hex(16)
    grants = data_map.grants()
    provision(admin, grants=grants, passwords={Role.MIGRATOR: password})
    source = admin.compliance.name
    return SecretStr(with_login(server.admin_uri, user=Role.MIGRATOR.value, password=password, source=source))


def with_login(uri: str, *, user: str, password: str, source: str) -> str:
    """Return *uri* for another user, who is known to the database *source*."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    query = dict(parse_qsl(parts.query)) | {"authSource": source}
    return urlunsplit(
        (
            parts.scheme,
            f"{quote(user, safe='')}:{quote(password, safe='')}@{host}",
            parts.path or "/",
            urlencode(query),
            "",
        )
    )


def _drop(admin: Databases) -> None:
    admin.compliance.command("dropAllUsersFromDatabase")
    for role in Role:
        admin.client.admin.command("dropRole", role_name(role, admin.name))
    for database in (admin.app, admin.audit, admin.compliance):
        admin.client.drop_database(database.name)
