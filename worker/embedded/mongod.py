"""mongod as a replica set with authentication: how a node runs, and how the set comes to a primary."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from compliance.errors import ConfigurationError
from compliance.mongo import (
    AUTHENTICATION_FAILED,
    TRANSACTION_LIMIT,
    UNAUTHORIZED,
    Client,
    Document,
    driver_errors,
    open_client,
)
from worker.embedded.home import ADMIN
from worker.embedded.ports import LOOPBACK, is_answering
from worker.embedded.process import Server, ServerSpec

T = TypeVar("T")

REPLICA_SET = "rs0"
APP_NAME = "compliance-embedded"
PROBE = timedelta(seconds=5)
ALREADY_INITIALIZED = 23
NOT_YET_INITIALIZED = 94
# All nodes are on this machine: a lost primary is replaced in about two seconds instead of ten.
SETTINGS = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
EXIT_MEANINGS = {
    48: "its port is in use",
    62: "another version of mongod wrote its data; set COMPLIANCE_MONGOD to that one, or take another COMPLIANCE_HOME",
    100: "another process uses its data directory, or it may not write there",
}


def mongod_spec(binary: Path, directory: Path, *, port: int, key_file: Path, test_commands: bool) -> ServerSpec:
    """Return how to run one node on the data in *directory*.

    Small and quiet: caches, oplog and log files are cut down to what a demonstration needs. Compression of messages is
    off because of CVE-2025-14847.

    Args:
        test_commands: Allow fail points, and run the TTL monitor every second.
    """
    data = directory / "data"
    parameters = [
        "diagnosticDataCollectionEnabled=false",
        "shutdownTimeoutMillisForSignaledShutdown=500",
        f"transactionLifetimeLimitSeconds={TRANSACTION_LIMIT.total_seconds():.0f}",  # of a worker that was killed
    ]
    if test_commands:
        parameters += ["enableTestCommands=1", "ttlMonitorSleepSecs=1"]
    return ServerSpec(
        name=directory.name,
        command=(
            *(str(binary), "--dbpath", str(data), "--port", str(port), "--bind_ip", LOOPBACK, "--nounixsocket"),
            *("--replSet", REPLICA_SET, "--keyFile", str(key_file), "--networkMessageCompressors", "disabled"),
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "128", "--quiet"),
            *("--wiredTigerEngineConfigString", "log=(file_max=8MB,prealloc=false)"),
            *(option for parameter in parameters for option in ("--setParameter", parameter)),
        ),
        directory=directory,
        port=port,
        listening="Waiting for connections",
        is_ready=lambda: _has_primary(port),
        exit_meanings=EXIT_MEANINGS,
        is_telling=lambda line: '"s":"E"' in line or '"s":"F"' in line,
    )


def settle(nodes: Sequence[Server], *, password: str) -> None:
    """Bring running *nodes* to a replica set on their ports, with a primary and the administrator.

    May be repeated after a crash at any point. A set whose ports changed is configured anew by force, which loses
    nothing because all its nodes are here.

    Raises:
        ConfigurationError: When the data know another password than *password*.
        StoreUnavailable: When there is no primary in time.
    """
    ports = [node.spec.port for node in nodes]
    first = nodes[0]
    for node in nodes:
        node.wait_listening()
    with driver_errors():
        if _patiently(first, lambda: _authenticates(ports[0], password)):
            _patiently(first, lambda: _align(ports, password))
        else:
            _patiently(first, lambda: _initiate(ports))
        for node in nodes:
            node.wait_ready()
        _patiently(first, lambda: _ensure_administrator(_primary(ports) or ports[0], password))


def _patiently(node: Server, action: Callable[[], T]) -> T:
    """Return the result of *action*, repeated while *node* changes its state and drops or refuses connections."""
    results: list[T] = []

    def is_done() -> bool:
        try:
            results.append(action())
        except ConnectionFailure:
            return False
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
        return bool(results)

    node.wait_until(is_done, what="does not come to a settled state")
    return results[0]


def _has_primary(port: int) -> bool:
    """Say whether the node on *port* is the primary or follows one."""
    hello = _hello(port)
    return bool(hello.get("isWritablePrimary")) or (bool(hello.get("secondary")) and "primary" in hello)


def _primary(ports: Sequence[int]) -> int | None:
    return next((port for port in ports if _hello(port).get("isWritablePrimary")), None)


def _hello(port: int) -> Document:
    if not is_answering(port):
        return {}
    with _connect(port) as client:
        try:
            return client.admin.command("hello")
        except PyMongoError:
            return {}


def _authenticates(port: int, password: str) -> bool:
    with _connect(port, password) as client:
        try:
            client.admin.command("ping")
        except OperationFailure as error:
            if error.code == AUTHENTICATION_FAILED:
                return False
            raise
    return True


def _align(ports: Sequence[int], password: str) -> None:
    """Give the set the members on *ports*.

    A node that was removed from its set, as one on a new port is, first asks whoever listens on the old port who it
    is: up to 30 seconds when that one never answers.
    """
    with _connect(ports[0], password) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        wanted = _members(ports)
        if {member["host"] for member in config["members"]} != {member["host"] for member in wanted}:
            config |= {"members": wanted, "version": config["version"] + 1}
            client.admin.command("replSetReconfig", config, force=True)


def _initiate(ports: Sequence[int]) -> None:
    with _connect(ports[0]) as client:
        try:
            client.admin.command(
                "replSetInitiate", {"_id": REPLICA_SET, "members": _members(ports), "settings": SETTINGS}
            )
        except OperationFailure as error:
            # Died between this and the administrator's creation: go on from there.
            if error.code not in {ALREADY_INITIALIZED, UNAUTHORIZED}:
                raise


def _ensure_administrator(port: int, password: str) -> None:
    """Create the administrator through the localhost exception, which ends with the first user."""
    if _authenticates(port, password):
        return
    with _connect(port) as client:
        try:
            client.admin.command("createUser", ADMIN, pwd=password, roles=["root"])
        except OperationFailure as error:
            raise ConfigurationError(
                "the embedded MongoDB knows another password than secrets.json; restore that file, or remove the home "
                "directory to begin with empty servers"
            ) from error


def _members(ports: Sequence[int]) -> list[Document]:
    return [{"_id": index, "host": f"{LOOPBACK}:{port}"} for index, port in enumerate(ports)]


def _connect(port: int, password: str | None = None) -> Client:
    credentials = f"{ADMIN}:{password}@" if password is not None else ""
    return open_client(
        f"mongodb://{credentials}{LOOPBACK}:{port}/?authSource=admin", app_name=APP_NAME, direct=True, timeout=PROBE
    )
