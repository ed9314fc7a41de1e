"""``compliance demo`` as a newcomer runs it: twice, on a machine whose own servers it must not reach."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from worker.demo.stage import MARKER
from worker.embedded.lock import hold_lock

COMMAND = Path(sys.executable).with_name("compliance")
CHAPTERS = (
    "A person",
    "A dry run, asked for by another service",
    "The erasure, live",
    "The change stream answers",
    "The audit trail",
    "What was kept, and who must be told",
    "Consent",
    "Access",
    "Four questions that auditors and services ask",
    "The log is whole, and a change shows",
    "What next",
)


def run(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.defpath, "PYTHONUTF8": "1", "COMPLIANCE_HOME": str(home), **variables}
    return subprocess.run([COMMAND, "demo"], env=environ, capture_output=True, text=True, check=False, timeout=300)


def processes_of(home: Path) -> list[str]:
    """Return every living process that was started on *home* or with it in its environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(home).encode() in text:
                found.append(process.name)
    return found


@pytest.mark.timeout(600)
def test_it_tells_the_story_twice_and_leaves_nothing_behind(tmp_path: Path) -> None:
    unreachable = {"MONGODB_URI": "mongodb://127.0.0.1:1/", "REDIS_URL": "redis://127.0.0.1:1/0"}
    for _ in range(2):
        done = run(tmp_path, **unreachable)

        assert (done.returncode, done.stderr) == (0, "")
        assert_readable(done.stdout)
        assert_true(done.stdout)
        assert_discreet(done.stdout, logs=tmp_path / "demo" / "log")
        assert processes_of(tmp_path) == []


def assert_readable(shown: str) -> None:
    lines = shown.splitlines()

    assert [line for line in lines if len(line) > 80 and "/" not in line] == []
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in shown
    assert [f"{number}. {title}" for number, title in enumerate(CHAPTERS, 1)] == [
        line for line in lines if re.match(r"\d+\. [A-Z]", line)
    ]


def assert_true(shown: str) -> None:
    assert "Your own servers (MONGODB_URI, REDIS_URL) are left alone" in shown
    assert re.search(r"completed with retention: \d{2,} documents", shown)
    assert re.search(r"check +no_residual\n +status +ok\n +cause +change", shown)
    assert shown.count("refused by MongoDB (error 13, Unauthorized)") == 2
    assert re.search(r"before +granted\n +after +withdrawn\n +events +1\n", shown)
    assert len(re.findall(r"^ +\d+ found, such as", shown, re.MULTILINE)) == 4
    assert re.search(r"one entry changed: \d+ entries read, MODIFIED", shown)
    assert re.search(r"the alarm of the watcher: MODIFIED", shown)
    assert re.search(r"put back: \d+ entries read, nothing wrong", shown)


def assert_discreet(shown: str, *, logs: Path) -> None:
    """The name and the address are shown in the first chapter, and never again nor in any log."""
    person = re.search(r"name +([^,]+), on stage.*\n +e-mail +(\S+)", shown)
    assert person is not None
    written = {path.name: path.read_text(errors="replace") for path in logs.iterdir()}

    assert {"worker.log", "watcher.log", "beat.log", "flower.log"} <= set(written)
    rung = [line for line in written["watcher.log"].splitlines() if "audit.incident" in line]
    assert {json.loads(line)["kind"] for line in rung} == {"MODIFIED"}
    for value in person.groups():
        assert [name for name, text in written.items() if value.casefold() in text.casefold()] == []
        assert value not in shown.partition(CHAPTERS[1])[2]


def test_a_folder_that_is_no_demonstration_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")

    done = run(tmp_path)

    assert done.returncode == 78
    assert "was not made by `compliance demo`" in done.stderr
    assert precious.read_text() == "mine"


def test_a_second_demonstration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    home.mkdir()
    (home / MARKER).touch()
    (home / "state.json").write_text("{}")

    with hold_lock(home):
        done = run(tmp_path)

    assert done.returncode == 75
    assert f"process {os.getpid()} already runs a stack" in done.stderr
    assert (home / "state.json").exists()
