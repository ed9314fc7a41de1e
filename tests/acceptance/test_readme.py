"""The tour of the README works as it stands, command by command."""

import os
import re
import subprocess
import sys
from pathlib import Path

from system import BIN
from waiting import wait_until

from worker.embedded import find_stack
from worker.embedded.ports import pick_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)


def commands() -> list[str]:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_command_of_the_tour_works_against_compliance_up(tmp_path: Path) -> None:
    environ = {"PATH": f"{BIN}:{os.defpath}", "COMPLIANCE_HOME": str(tmp_path), "COMPLIANCE_SWEEP_SECONDS": "1"}
    log = tmp_path / "up.out"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "worker", "up", f"--flower-port={pick_port(None)}"],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "stop with Ctrl-C" in log.read_text(), timeout=90, what="it is up")
        script = "set -eux\n" + "\n".join(commands())
        done = subprocess.run(
            ["/bin/bash", "-c", script], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
        )
    finally:
        up.terminate()
        up.wait(60)

    assert len(commands()) > 8
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    assert "0 findings" in done.stdout
    assert find_stack(tmp_path) is None
