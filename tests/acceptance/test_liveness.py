"""A heartbeat file is fresh while its process works, and only then."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from system import System

NAMES = ("worker", "beat", "watcher")


def is_alive(path: Path, *, max_age: str = "5") -> bool:
    """Ask as a health check does; it says yes, no, or is wrong."""
    arguments = [sys.executable, "-m", "worker.alive", str(path), "--max-age", max_age]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 0


@pytest.fixture
def processes(system: System) -> dict[str, subprocess.Popen[bytes]]:
    """Worker, beat and watcher, each with a file of its own; one of an earlier life lies there."""
    started = {}
    for name in NAMES:
        path = system.home / f"{name}.alive"
        path.touch()
        os.utime(path, (0, 0))
        (child,) = system.start(name, COMPLIANCE_HEARTBEAT_FILE=str(path)).children
        started[name] = child.process
    return started


def alive(system: System) -> set[str]:
    return {name for name in NAMES if is_alive(system.home / f"{name}.alive")}


def test_the_file_is_fresh_while_the_process_works_and_only_then(
    system: System, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    system.wait_for(lambda: alive(system) == set(NAMES), "all are ready")
    for process in processes.values():
        process.send_signal(signal.SIGSTOP)
    system.wait_for(lambda: alive(system) == set(), "those that hang are noticed")
    for process in processes.values():
        process.send_signal(signal.SIGCONT)
    system.wait_for(lambda: alive(system) == set(NAMES), "they work again")
    system.deployment.stack.valkey.kill()
    system.wait_for(lambda: alive(system) == {"watcher"}, "without a broker there is no work")
    system.deployment.stack.valkey.start()
    system.wait_for(lambda: alive(system) == set(NAMES), "the broker is back", timeout=90)
    for process in processes.values():
        process.terminate()
    codes = {name: process.wait(30) for name, process in processes.items()}

    assert codes == dict.fromkeys(NAMES, 0)
    assert not list(system.home.glob("*.alive"))


@pytest.mark.parametrize(
    "command", [("compliance", "watcher"), ("celery", "-A", "worker", "worker"), ("celery", "-A", "worker", "beat")]
)
def test_a_file_that_cannot_be_written_is_said_at_the_start(system: System, command: tuple[str, ...]) -> None:
    done = system.command(*command, COMPLIANCE_HEARTBEAT_FILE="/nowhere/alive")

    assert done.returncode == 78
    assert "COMPLIANCE_HEARTBEAT_FILE: /nowhere/alive cannot be written (FileNotFoundError)" in done.stderr
