"""The stack as a whole: both servers up together, down together, and safe to start again after any crash."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from compliance.errors import ConfigurationError
from worker.embedded.binaries import find_mongod, find_valkey
from worker.embedded.endpoints import Endpoints, mongod_name, read_endpoints
from worker.embedded.home import ADMIN, Secrets, State, make_private, write_private
from worker.embedded.lock import hold_lock
from worker.embedded.mongod import mongod_spec, settle
from worker.embedded.orphan import stop_orphan
from worker.embedded.ports import keep_or_move
from worker.embedded.process import Server, ServerExited
from worker.embedded.valkey import valkey_spec

log = logging.getLogger(__name__)

PRODUCTION = "production"
PORT_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The running servers, for the process that opened them; others use ``find_stack``.

    A server that was killed comes back with ``start`` on the same port and data.
    """

    home: Path
    state: State
    mongods: tuple[Server, ...]
    valkey: Server
    secrets: Secrets = field(repr=False)

    @property
    def endpoints(self) -> Endpoints:
        """Where the servers listen now."""
        return read_endpoints(self.home, state=self.state, secrets=self.secrets)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All servers in the order in which they start."""
        return (*self.mongods, self.valkey)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    home: Path
    nodes: int
    mongod: Path
    valkey: Path
    test_commands: bool
    secrets: Secrets


@contextmanager
def open_stack(
    home: Path,
    *,
    nodes: int = 1,
    mongod: Path | None = None,
    environment: str = "development",
    test_commands: bool = False,
    prepare: Callable[[Endpoints], None] | None = None,
) -> Iterator[Stack]:
    """Run MongoDB and Valkey in *home* until the block ends.

    MUST be called in the main thread. The servers end with this process, even when it is killed; the next start
    recovers their data and keeps their ports. ``find_stack`` sees the stack from the moment the block begins.

    Args:
        nodes: Size of the replica set; stays the same for the life of *home*.
        mongod: The program to run instead of one that is found.
        environment: As ``COMPLIANCE_ENV``.
        test_commands: Allow fail points.
        prepare: Called once at each start when both servers serve (users, roles); must be repeatable.

    Raises:
        ConfigurationError: In production, or when a server program or library is missing; nothing was started.
        LockHeld: When another process runs a stack in *home*.
        StoreUnavailable: When a server ends early or is not ready in time; the message quotes its log.
    """
    _refuse_production(environment)
    programs = find_mongod(mongod), find_valkey()
    make_private(home)
    with ExitStack() as cleanup:
        cleanup.enter_context(hold_lock(home.absolute()))
        plan = _Plan(
            home=home.absolute(),
            nodes=nodes,
            mongod=programs[0],
            valkey=programs[1],
            test_commands=test_commands,
            secrets=Secrets.load_or_create(home),
        )
        _recover(plan)
        stack = _start(plan, cleanup)
        if prepare is not None:
            prepare(stack.endpoints)
        replace(stack.state, is_open=True).save(home)
        log.info("embedded.opened", extra={"home": str(home), "nodes": nodes})
        yield stack


def _refuse_production(environment: str) -> None:
    if environment == PRODUCTION:
        raise ConfigurationError(
            "the embedded servers are for demonstration, development and tests; with COMPLIANCE_ENV=production "
            "set MONGODB_URI and REDIS_URL to your own"
        )


def _start(plan: _Plan, cleanup: ExitStack, *, attempts: int = PORT_ATTEMPTS) -> Stack:
    """Start the servers and leave their end to *cleanup*."""
    stack = _build(plan)
    try:
        with ExitStack() as undo:
            undo.callback(_stop, stack)
            _bring_up(stack)
            cleanup.push(undo.pop_all())
    except ServerExited as error:
        # Between our look at the port and its use somebody else took it.
        if not error.is_port_taken or attempts == 1:
            raise
        log.warning("embedded.port_taken", extra={"home": str(plan.home)})
        return _start(plan, cleanup, attempts=attempts - 1)
    return stack


def _recover(plan: _Plan) -> None:
    """Put an end to what an earlier supervisor may have left behind.

    Raises:
        ConfigurationError: When *plan* does not fit the data.
    """
    kept = State.load(plan.home)
    if plan.nodes < 1:
        raise ConfigurationError("a replica set has at least one node")
    if kept.mongod_ports and len(kept.mongod_ports) != plan.nodes:
        raise ConfigurationError(
            f"{plan.home} holds a replica set of {len(kept.mongod_ports)} nodes, not {plan.nodes}; "
            "set COMPLIANCE_HOME to another directory"
        )
    replace(kept, is_open=False).save(plan.home)
    for name in (*(mongod_name(index) for index in range(plan.nodes)), "valkey"):
        stop_orphan(plan.home / name / "pid", directory=plan.home / name)


def _build(plan: _Plan) -> Stack:
    """Choose the ports (the sticky ones where they are free), remember them and write what the servers read."""
    kept = State.load(plan.home)
    *mongod_ports, valkey_port = keep_or_move([*(kept.mongod_ports or (0,) * plan.nodes), kept.valkey_port])
    state = State(mongod_ports=tuple(mongod_ports), valkey_port=valkey_port)
    state.save(plan.home)
    key_file = plan.home / "mongod.key"
    write_private(key_file, plan.secrets.key_file)
    mongods = []
    for index, port in enumerate(mongod_ports):
        directory = plan.home / mongod_name(index)
        make_private(directory)
        make_private(directory / "data")
        mongods.append(
            mongod_spec(plan.mongod, directory, port=port, key_file=key_file, test_commands=plan.test_commands)
        )
    make_private(plan.home / "valkey")
    valkey = valkey_spec(plan.valkey, plan.home / "valkey", port=valkey_port, password=plan.secrets.redis)
    return Stack(
        home=plan.home,
        state=state,
        mongods=tuple(Server(spec) for spec in mongods),
        valkey=Server(valkey),
        secrets=plan.secrets,
    )


def _bring_up(stack: Stack) -> None:
    for server in stack.servers:
        server.spawn()
    stack.valkey.wait_ready()
    settle(stack.mongods, password=stack.secrets.passwords[ADMIN])


def _stop(stack: Stack) -> None:
    """Stop all servers at the same time, the last started first; a second Ctrl-C does not cut this short."""
    with _uninterrupted():
        replace(stack.state, is_open=False).save(stack.home)
        for server in reversed(stack.servers):
            server.terminate()
        for server in reversed(stack.servers):
            server.stop()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
