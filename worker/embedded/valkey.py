"""Valkey (or Redis) as the broker: durable, with a password, on loopback."""

from pathlib import Path

from worker.embedded.home import write_private
from worker.embedded.ports import LOOPBACK, is_answering
from worker.embedded.process import ServerSpec


def valkey_spec(binary: Path, directory: Path, *, port: int, password: str) -> ServerSpec:
    """Write the configuration into *directory* and return how to run the server on it.

    The password stands in that file (mode 0600) and never on the command line.
    """
    config = directory / "valkey.conf"
    write_private(config, configuration(directory, port=port, password=password))
    return ServerSpec(
        name="valkey",
        command=(str(binary), str(config)),
        directory=directory,
        port=port,
        listening="Ready to accept connections",
        is_ready=lambda: _answers(port, password),
    )


def configuration(directory: Path, *, port: int, password: str) -> str:
    """Return the configuration file: append-only, evicting nothing, so that no acknowledged message is dropped."""
    quoted = str(directory).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{quoted}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            # Else the title hides the path that identifies an orphan.
            "set-proc-title no",
            "",
        ]
    )


def _answers(port: int, password: str) -> bool:
    if not is_answering(port):
        return False
    from redis import Redis  # noqa: PLC0415 - worker.client imports this package, and runs where there is no Redis
    from redis.exceptions import RedisError  # noqa: PLC0415 - as above

    with Redis(host=LOOPBACK, port=port, password=password, socket_timeout=5) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
