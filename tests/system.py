"""The installed commands as processes of their own, on one migrated and filled database."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Celery
from deployment import Deployment
from preloaded import run_command
from waiting import wait_until

from worker.demo.seed import Seeded, insert, seed_documents
from worker.embedded.ports import pick_port
from worker.processes import Group, run_processes

BIN = Path(sys.executable).parent


@dataclass
class Receiver:
    """Takes what a Sentry client sends."""

    port: int
    envelopes: list[bytes] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.port}/1"


@dataclass
class System:
    """A deployment with its processes."""

    deployment: Deployment
    seeded: Seeded
    environ: dict[str, str]
    home: Path
    sentry: Receiver
    flower_port: int
    cleanup: ExitStack

    def start(self, *names: str, **environ: str) -> Group:
        """Start processes; they end with the test."""
        return self.cleanup.enter_context(
            run_processes(
                names,
                environ=self.environ | environ,
                logs=self.home,
                extra={"flower": (f"--port={self.flower_port}",), "worker": ("--concurrency=2", "--without-mingle")},
            )
        )

    def service(self) -> Celery:
        """A Celery client of another service: knows the broker, nothing of ours."""
        app = Celery("somebody-else", broker=self.environ["REDIS_URL"], set_as_current=False)
        self.cleanup.callback(app.close)
        return app

    def compliance(self, *arguments: str, expect: int = 0, **environ: str) -> str:
        """Run the installed command; return what it printed to stdout."""
        done = self.command("compliance", *arguments, **environ)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def command(self, program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        if program == "compliance":
            return run_command(arguments, self.environ | environ, self.home)
        return subprocess.run(
            [BIN / program, *arguments],
            env=self.environ | environ,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def flower(self, path: str) -> str:
        """What Flower answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.flower_port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def flower_tasks(self) -> list[dict[str, Any]]:
        """The tasks that Flower has seen; none while it does not serve yet."""
        try:
            return list(json.loads(self.flower("/api/tasks")).values())
        except OSError:
            return []

    def wait_for(self, predicate: Callable[[], Any], what: str, *, timeout: float = 60) -> None:
        wait_until(lambda: bool(predicate()), timeout=timeout, what=what)

    def request(self, request_id: str) -> dict[str, Any]:
        return self.deployment.admin.compliance["erasure_requests"].find_one({"_id": request_id}) or {}

    def job(self, request_id: str) -> dict[str, Any]:
        return self.deployment.admin.compliance["jobs"].find_one({"_id": request_id}) or {}


def environ_of(deployment: Deployment, sentry: Receiver, home: Path) -> dict[str, str]:
    """The environment of the processes of one test."""
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "COLUMNS": "200",
        "COMPLIANCE_SWEEP_SECONDS": "1",
        "COMPLIANCE_LEASE_SECONDS": "3",
        "SENTRY_DSN": sentry.dsn,
        "FLOWER_UNAUTHENTICATED_API": "true",
        **deployment.environ(home),
    }


def children_of(pid: int) -> set[int]:
    """The processes that *pid* started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@contextmanager
def filled_system(deployment: Deployment, home: Path, **environ: str) -> Iterator[System]:
    """A filled database and its processes, for one test; nobody receives for Sentry."""
    seeded = seed_documents(3, people=40, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))
    insert(seeded, deployment.admin)
    nobody = Receiver(9)
    with ExitStack() as cleanup:
        yield System(
            deployment, seeded, environ_of(deployment, nobody, home) | environ, home, nobody, pick_port(None), cleanup
        )


@contextmanager
def running_up(home: Path, environ: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """Run ``compliance up`` for the block; give the process, what it prints, and the port of Flower."""
    log, port = home / "up.out", pick_port(None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "up", f"--flower-port={port}"],
            env=dict(environ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "stop with Ctrl-C" in log.read_text(), timeout=90, what="it is up")
        yield process, log, port
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
