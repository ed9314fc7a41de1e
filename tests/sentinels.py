"""A master, a replica and three Sentinels, as real servers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.sentinel import MasterNotFoundError, Sentinel

from worker.embedded.binaries import find_valkey
from worker.embedded.home import make_private, write_private
from worker.embedded.ports import LOOPBACK, is_answering, pick_port
from worker.embedded.process import Server, ServerSpec
from worker.embedded.valkey import configuration

MASTER = "main"
PASSWORD = "data-pw"
SENTINEL_PASSWORD = "sentinel-pw"


@dataclass(frozen=True)
class Replicated:
    """Running servers; the first of *data* was the master at the start."""

    data: tuple[Server, ...]
    sentinels: tuple[Server, ...]

    @property
    def url(self) -> str:
        """With the credentials at the first Sentinel only, as people write it."""
        first, *others = (f"{LOOPBACK}:{each.spec.port}" for each in self.sentinels)
        return ";".join([f"sentinel://:{PASSWORD}@{first}/0", *(f"sentinel://{other}" for other in others)])

    def master_port(self) -> int | None:
        """The port of the master; None while there is none."""
        places = [(LOOPBACK, each.spec.port) for each in self.sentinels]
        try:
            found = Sentinel(places, sentinel_kwargs={"password": SENTINEL_PASSWORD}).discover_master(MASTER)
        except MasterNotFoundError:
            return None
        return int(found[1])

    def replicas_in_sync(self) -> int:
        with Redis(port=self.data[0].spec.port, password=PASSWORD) as first:
            found = first.info("replication")
        return sum(1 for name, value in found.items() if name.startswith("slave") and value["state"] == "online")


@contextmanager
def replicated(home: Path) -> Iterator[Replicated]:
    """Run them until the block ends."""
    with ExitStack() as cleanup:
        first = _data(home / "data-0", cleanup, "")
        second = _data(home / "data-1", cleanup, f"replicaof {LOOPBACK} {first.spec.port}\n")
        watchers = tuple(_sentinel(home / f"sentinel-{n}", cleanup, first.spec.port) for n in range(3))
        yield Replicated((first, second), watchers)


def _data(directory: Path, cleanup: ExitStack, more: str) -> Server:
    port = pick_port(None)
    plain = configuration(directory, port=port, password=PASSWORD)
    # Without a delay a replica gets its first copy at once.
    written = f"{plain}masterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n{more}"
    return _start(directory, cleanup, port, written, "Ready to accept connections")


def _sentinel(directory: Path, cleanup: ExitStack, master: int) -> Server:
    port = pick_port(None)
    written = "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f'dir "{directory}"',
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
            f"sentinel monitor {MASTER} {LOOPBACK} {master} 2",
            f"sentinel auth-pass {MASTER} {PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 5000",
            "",
        ]
    )
    return _start(directory, cleanup, port, written, "Sentinel ID is", "--sentinel")


def _start(directory: Path, cleanup: ExitStack, port: int, configured: str, listening: str, *arguments: str) -> Server:
    make_private(directory)
    config = directory / "valkey.conf"
    write_private(config, configured)
    server = Server(
        ServerSpec(
            name=directory.name,
            command=(str(find_valkey()), str(config), *arguments),
            directory=directory,
            port=port,
            listening=listening,
            is_ready=lambda: is_answering(port),
        )
    )
    cleanup.callback(server.stop)
    server.start()
    return server
