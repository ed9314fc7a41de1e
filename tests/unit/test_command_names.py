"""The commands by name: a command waits for its own imports only."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from worker.cli import build_cli
from worker.cli.commands import PLACES

START = """
import sys
import worker.main
from worker.cli.commands import Commands
Commands()["migrate"]
print(*sorted(name for name in ("celery", "redis", "flower") if name in sys.modules))
"""


def test_a_command_that_rings_no_bell_waits_for_no_broker_library() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_help_lists_every_command() -> None:
    done = CliRunner().invoke(build_cli(), ["--help"], env={"COLUMNS": "200"})
    assert [name for name in PLACES if f" {name} " not in done.stdout] == []


@pytest.mark.parametrize("name", PLACES)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(build_cli(), [name, "--help"], prog_name="compliance")
    assert done.exit_code == 0
    assert f"Usage: compliance {name}" in done.stdout


def test_a_misspelt_command_is_told_the_nearest_one() -> None:
    done = CliRunner().invoke(build_cli(), ["mirgate"])
    assert done.exit_code == 2
    assert "'migrate'" in done.stderr


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(build_cli(), ["--version"])
    assert done.exit_code == 0
    assert done.stdout.startswith("compliance-worker ")
