"""A heartbeat says that the whole process works, and looking at it costs next to nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from waiting import wait_until

from compliance.errors import ConfigurationError, StoreUnavailable
from worker import alive, liveness
from worker.liveness import Chorus, Gate, Heartbeat, fault_ends_process


class Counted(Heartbeat):
    """Counts its beats."""

    def __init__(self) -> None:
        super().__init__(None)
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1


@given(st.lists(st.sampled_from(["app", "compliance"])))
def test_a_chorus_never_beats_more_often_than_its_slowest_voice(voices: list[str]) -> None:
    heartbeat = Counted()
    chorus = Chorus(heartbeat, ["app", "compliance"])
    for voice in voices:
        chorus.hear(voice)

    assert heartbeat.beats <= min(voices.count("app"), voices.count("compliance"))
    assert heartbeat.beats or len(set(voices)) < 2


def test_what_an_earlier_process_left_is_removed_before_the_first_beat(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "alive")
    heartbeat.beat()
    heartbeat.begin()
    begun = list(tmp_path.iterdir())
    heartbeat.beat()
    beaten = list(tmp_path.iterdir())
    heartbeat.end()
    heartbeat.end()

    assert (begun, beaten, list(tmp_path.iterdir())) == ([], [tmp_path / "alive"], [])


def test_a_disk_that_fails_is_said_and_does_not_end_the_process(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Heartbeat(tmp_path / "gone" / "alive").beat()

    assert [(line["event"], line["error"]) for line in logs] == [("heartbeat.not_written", "FileNotFoundError")]


def test_without_a_file_there_is_nothing_to_do() -> None:
    heartbeat = Heartbeat(None)
    heartbeat.begin()
    heartbeat.beat()
    heartbeat.end()


def test_a_worker_is_not_ready_before_mongodb_has_confirmed_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "INTERVAL_SECONDS", 0.01)
    answers: list[Exception | None] = [StoreUnavailable("away"), ConfigurationError("too many rights"), None]
    opened: list[bool] = []

    def check() -> None:
        opened.append(gate.is_open)
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    gate = Gate(check)
    with capture_logs() as logs:
        gate.keep_trying(threading.Event())

    assert gate.is_open
    assert opened == [False, False, False]
    assert [(line["event"], line["reason"]) for line in logs] == [("worker.refused", "too many rights")]


def test_a_worker_that_ends_is_not_asked_for_its_rights_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "INTERVAL_SECONDS", 0.01)
    ended = threading.Event()

    def check() -> None:
        raise StoreUnavailable("away")

    gate = Gate(check)
    thread = threading.Thread(target=gate.keep_trying, args=(ended,))
    thread.start()
    ended.set()
    wait_until(lambda: not thread.is_alive(), timeout=5, what="it gives up")

    assert not gate.is_open


def test_a_fault_at_the_start_ends_the_process_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, fault_ends_process():
        raise ConfigurationError("the file cannot be written")

    assert caught.value.code == 78
    assert capsys.readouterr().err == "error: the file cannot be written\n"


@pytest.mark.parametrize(("age_seconds", "code"), [(0, 0), (29, 0), (31, 3), (100_000, 3), (-31, 3)], ids=str)
def test_a_file_is_fresh_for_thirty_seconds(age_seconds: int, code: int, tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    touched = path.stat().st_mtime - age_seconds
    os.utime(path, (touched, touched))

    assert alive.main([str(path)]) == code


def test_a_file_that_is_not_there_is_not_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alive.main([str(tmp_path / "alive"), "--max-age", "1e9"]) == 3
    assert "not ready, or has ended" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["f", "--max-age", "soon"], ["f", "--max", "3"], ["f", "--quick"]])
def test_wrong_usage_is_no_answer(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        alive.main(arguments)

    assert caught.value.code == 2


def test_looking_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    code = (
        "import sys; before = set(sys.modules); from worker.alive import main; code = main([sys.argv[1]]); "
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(added - set(sys.stdlib_module_names))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "['worker']"), done.stderr
