"""Where a running stack listens: what its own process and every other process of the same user connect with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from compliance.errors import ConfigurationError
from worker.embedded.home import Secrets, State
from worker.embedded.lock import is_locked
from worker.embedded.mongod import REPLICA_SET
from worker.embedded.orphan import read_pid
from worker.embedded.ports import LOOPBACK, is_answering


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Addresses and credentials of a running stack; its representation shows no secret.

    Attributes:
        pids: The process id of each server, by its name (``mongod-0``, ``valkey``).
    """

    mongod_ports: tuple[int, ...]
    valkey_port: int
    pids: Mapping[str, int]
    secrets: Secrets = field(repr=False)

    def password(self, user: str) -> str:
        """Return the generated password of a MongoDB user: ``admin`` or one of ``Role``.

        Raises:
            ConfigurationError: When the stack has no password for it.
        """
        try:
            return self.secrets.passwords[user]
        except KeyError:
            known = ", ".join(sorted(self.secrets.passwords))
            raise ConfigurationError(f"the embedded stack has no such user; known: {known}") from None

    def mongodb_uri(self, user: str, *, auth_source: str) -> str:
        """Return the connection string of *user*, with its password.

        Args:
            auth_source: The database that knows the user: ``admin`` for ``admin``, else ``<database>_compliance``.

        Raises:
            ConfigurationError: As ``password``.
        """
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.mongod_ports)
        credentials = f"{quote(user, safe='')}:{quote(self.password(user), safe='')}"
        return f"mongodb://{credentials}@{hosts}/?replicaSet={REPLICA_SET}&authSource={quote(auth_source, safe='')}"

    @property
    def redis_url(self) -> str:
        """The connection string of the broker, with its password."""
        return f"redis://:{quote(self.secrets.redis, safe='')}@{LOOPBACK}:{self.valkey_port}/0"


def find_stack(home: Path) -> Endpoints | None:
    """Return the endpoints of the stack that some process runs in *home*, or None when none is open.

    Raises:
        ConfigurationError: When its ``secrets.json`` cannot be read.
    """
    state = State.load(home)
    if not state.is_open or not is_locked(home):
        return None
    if not all(is_answering(port) for port in (*state.mongod_ports, state.valkey_port)):
        return None
    secrets = Secrets.load(home)
    return read_endpoints(home, state=state, secrets=secrets) if secrets is not None else None


def read_endpoints(home: Path, *, state: State, secrets: Secrets) -> Endpoints:
    """Return the endpoints that *state* describes, with the process ids that the servers noted."""
    names = (*(mongod_name(index) for index in range(len(state.mongod_ports))), "valkey")
    noted = {name: read_pid(home / name / "pid") for name in names}
    return Endpoints(
        mongod_ports=state.mongod_ports,
        valkey_port=state.valkey_port,
        pids={name: pid for name, pid in noted.items() if pid is not None},
        secrets=secrets,
    )


def mongod_name(index: int) -> str:
    """Return the name of a node, which is its directory too."""
    return f"mongod-{index}"
