"""A process that forks runs of one script, each of which may be killed at its n-th write; see ``Mortal``."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from pydantic import SecretStr
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent, register

from compliance.audit.own import build_writer
from compliance.clock import SystemClock
from compliance.errors import ComplianceError
from compliance.mongo import Databases, open_client
from compliance.settings import Settings
from migrations.wish import Wish
from worker.testing.scene import OURS, Scene, line_to, runner_of

LIMIT_SECONDS = 120
READS = frozenset(
    {
        "abortTransaction",
        "buildInfo",
        "collStats",
        "connectionStatus",
        "count",
        "dbStats",
        "distinct",
        "endSessions",
        "explain",
        "find",
        "getMore",
        "getParameter",
        "hello",
        "isMaster",
        "killCursors",
        "listCollections",
        "listIndexes",
        "ping",
        "replSetGetStatus",
        "rolesInfo",
        "saslContinue",
        "saslStart",
        "serverStatus",
        "usersInfo",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run.

    Attributes:
        kill_at: The number of the write, from 1, that it does not live to send; 0 for none.
        pause_ms: How long it waits before each command, so that others come in between.
    """

    uri: str = field(repr=False)
    database: str
    folder: str
    data_map: str
    writer_key: str = field(repr=False)
    script: str
    batch_docs: int
    kill_at: int = 0
    pause_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run ended.

    Attributes:
        writes: What it wrote, such as ``update things``; of a run that was killed up to then.
        error: Why it failed; empty where it did not.
    """

    was_killed: bool
    writes: tuple[str, ...]
    error: str


class Fateful(CommandListener):
    """Counts the writes of the thread that runs the script, and kills the process before one of them."""

    def __init__(self, order: Order, told: int) -> None:
        self._order, self._told, self._count = order, told, 0
        self._clock = SystemClock()
        self._thread = threading.get_ident()

    def started(self, event: CommandStartedEvent) -> None:
        """Meet the command that is about to be sent."""
        if threading.get_ident() != self._thread:
            return
        if self._order.pause_ms:
            self._clock.sleep(timedelta(milliseconds=self._order.pause_ms))
        if not is_write(event.command_name, event.command):
            return
        self._count += 1
        target = event.command.get(event.command_name)
        what = f"{event.command_name} {target}" if isinstance(target, str) else event.command_name
        os.write(self._told, f"{json.dumps(what)}\n".encode())
        if self._count == self._order.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Do nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Do nothing."""


def is_write(name: str, command: Mapping[str, Any]) -> bool:
    """Whether a command may change something: between two that do, a death is like one before the second."""
    if name == "aggregate":
        return any({"$out", "$merge"} & set(stage) for stage in command.get("pipeline", ()))
    return name not in READS


@dataclass(frozen=True, slots=True)
class Mortal:
    """The process, from outside."""

    process: "subprocess.Popen[str]"

    def run(self, scene: Scene, *, kill_at: int = 0, pause_ms: int = 0) -> End:
        """Let the script of *scene* run in a process of its own; return how that ended."""
        settings = scene.settings
        key = settings.writer_key
        order = Order(
            uri=scene.uri,
            database=scene.admin.name,
            folder=str(settings.migrations),
            data_map=str(settings.data_map),
            writer_key=key.get_secret_value() if key else "",
            script=scene.revision.name,
            batch_docs=settings.batch_docs,
            kill_at=kill_at,
            pause_ms=pause_ms,
        )
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("it was not started with pipes")
        stdin.write(json.dumps(asdict(order)) + "\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], LIMIT_SECONDS)
        if not ready:
            raise AssertionError(f"{scene.revision.name} does not end within {LIMIT_SECONDS} s")
        told = json.loads(stdout.readline())
        return End(was_killed=told["was_killed"], writes=tuple(told["writes"]), error=told["error"])


@contextmanager
def open_mortal() -> Iterator[Mortal]:
    """Start the process; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.testing.mortal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Mortal(process)
    finally:
        process.communicate()


def main() -> None:
    """Fork a run for each line on stdin, and tell on stdout how it ended."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _run(order, write)
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            told = [json.loads(one) for one in pipe]
        _, status = os.waitpid(pid, 0)
        errors = [one["error"] for one in told if isinstance(one, dict)]
        was_killed = os.WIFSIGNALED(status)
        if not was_killed and os.waitstatus_to_exitcode(status) and not errors:
            errors = ["it ended without a word"]
        writes = [one for one in told if isinstance(one, str)]
        answer = {"was_killed": was_killed, "writes": writes, "error": "; ".join(errors)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(order: Order, told: int) -> NoReturn:
    register(Fateful(order, told))
    try:
        migrate(order)
    except ComplianceError as error:
        os.write(told, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - told to who asked
        os.write(told, json.dumps({"error": repr(error)}).encode())
        os._exit(1)
    os._exit(0)


def migrate(order: Order) -> None:
    """Apply the script of *order* as the migrator."""
    settings = Settings.model_validate(
        {
            "MONGODB_DATABASE": order.database,
            "COMPLIANCE_MIGRATIONS": Path(order.folder),
            "COMPLIANCE_DATA_MAP": Path(order.data_map),
            "COMPLIANCE_WRITER_KEY": SecretStr(order.writer_key),
            "COMPLIANCE_BATCH_DOCS": order.batch_docs,
        }
    )
    with open_client(order.uri, app_name=OURS) as client:
        databases = Databases(client, order.database, build_writer(settings, process=OURS))
        line = line_to(settings.migrations, order.script)
        runner_of(settings, databases, line, lambda _: None).up(wish=Wish(only=order.script))


if __name__ == "__main__":
    main()
