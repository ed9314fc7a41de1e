"""A command as an anchor: it gets the checkpoint, its time is bounded, and nothing it says is repeated."""

import os
import sys
import time
from pathlib import Path

import pytest
from waiting import wait_until
from witnesses import head_of

from compliance.errors import AnchorUnavailable, ConfigurationError
from worker.anchors.kinds.command import CommandAnchor

HEAD = head_of(7)
PATIENCE = 20.0


def python(script: str, *, timeout: float = PATIENCE, **environment: str) -> CommandAnchor:
    return CommandAnchor(
        name="upload", command=(sys.executable, "-c", script), timeout_seconds=timeout, environment=environment
    )


def test_the_command_gets_the_checkpoint_on_its_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "note"

    assert python(f"import sys; open({str(path)!r}, 'wb').write(sys.stdin.buffer.read())").push(HEAD) == b""

    assert path.read_bytes() == HEAD.note


def test_the_command_gets_no_variable_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URI", "mongodb://secret")
    path = tmp_path / "names"
    script = f"import os; open({str(path)!r}, 'w').write(' '.join(sorted(os.environ)))"

    python(script, REGION="eu").push(HEAD)

    names = {
        name for name in path.read_text().split() if not name.startswith("SUBPROCESS_")
    }  # by Sentry, where it is on

    assert names - {"LC_CTYPE"} == {"PATH", "REGION"}


@pytest.mark.parametrize("script", ["raise SystemExit(3)", "import os, sys; sys.stdin.close(); os._exit(3)"])
def test_an_exit_code_decides(script: str) -> None:
    with pytest.raises(AnchorUnavailable, match=r"^the command of anchor upload ended with 3$"):
        python(script).push(HEAD)


def test_a_command_that_is_killed_has_failed() -> None:
    with pytest.raises(AnchorUnavailable, match=r"ended with -9$"):
        python("import os; os.kill(os.getpid(), 9)").push(HEAD)


def test_a_command_need_not_read(capfd: pytest.CaptureFixture[str]) -> None:
    python("print('private'); import sys; print('private', file=sys.stderr)").push(HEAD)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("nowhere-to-be-found",), ("/",), ("/nowhere/at/all",)], ids=str)
def test_a_command_that_is_missing_is_a_matter_of_configuration(command: tuple[str, ...]) -> None:
    anchor = CommandAnchor(name="upload", command=command, timeout_seconds=PATIENCE)

    with pytest.raises(ConfigurationError, match=r"^the command of anchor upload cannot be started \(\w+Error\)$"):
        anchor.push(HEAD)


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(path)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    with pytest.raises(AnchorUnavailable, match="did not end within 2 s"):
        python(script, timeout=2).push(HEAD)

    assert time.monotonic() - began < PATIENCE
    wait_until(lambda: not is_running(int(path.read_text())), timeout=PATIENCE, what="the child ends")


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(path)!r}, 'w').write(str(child.pid))"
    )

    python(script).push(HEAD)

    wait_until(lambda: not is_running(int(path.read_text())), timeout=PATIENCE, what="the child ends")


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
