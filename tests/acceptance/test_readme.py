"""The tour of the README works as it stands, command by command."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from system import BIN, running_up

from worker.embedded import find_stack

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)


def commands() -> list[str]:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(300)  # every command of the README, one process after the other
def test_every_command_of_the_tour_works_against_compliance_up(tmp_path: Path) -> None:
    environ = {"PATH": f"{BIN}:{os.defpath}", "COMPLIANCE_HOME": str(tmp_path), "COMPLIANCE_SWEEP_SECONDS": "1"}
    script = "set -eux\n" + "\n".join(commands())
    with running_up(tmp_path, environ):
        done = subprocess.run(
            ["/bin/bash", "-c", script], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
        )

    assert len(commands()) > 8
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    assert "0 findings" in done.stdout
    assert find_stack(tmp_path) is None
