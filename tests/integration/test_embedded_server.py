"""One child process: how it ends, and what is said about it (made-up servers)."""

import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compliance.errors import LockHeld, StoreUnavailable
from tests.waiting import wait_until
from worker.embedded import process
from worker.embedded.lock import hold_lock, is_locked
from worker.embedded.orphan import is_server, read_pid, stop_orphan
from worker.embedded.ports import is_free, keep_or_move, pick_port
from worker.embedded.process import Server, ServerExited, ServerSpec

STUBBORN = 'trap "" TERM; echo listening; while :; do sleep 1; done'


def server(directory: Path, script: str, *, port: int = 1) -> Server:
    return Server(
        ServerSpec(
            name="made-up",
            # The directory is the $0 of the script: it identifies the process.
            command=("/bin/sh", "-c", script, str(directory)),
            directory=directory,
            port=port,
            listening="listening",
            is_ready=lambda: True,
            exit_meanings={48: "its port is in use"},
            is_telling=lambda line: "ERROR" in line,
        )
    )


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_an_early_end_is_told_with_its_meaning_and_the_log(tmp_path: Path, busy_port: int) -> None:
    made_up = server(tmp_path, "echo starting; echo ERROR no such port; echo bye; exit 48", port=busy_port)

    with pytest.raises(
        ServerExited, match=r"ended with code 48: its port is in use; .*: ERROR no such port$"
    ) as caught:
        made_up.start()
    assert caught.value.is_port_taken


def test_a_server_that_never_listens_is_given_up_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START", timedelta(milliseconds=300))
    mute = server(tmp_path, "echo still loading; exec sleep 60")

    with pytest.raises(StoreUnavailable, match=r"made-up does not listen after .* ends: still loading$"):
        mute.start()
    mute.kill()


def test_the_log_of_an_earlier_run_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("ERROR of yesterday\n")

    with pytest.raises(ServerExited, match=r"says: fresh$"):
        server(tmp_path, "echo fresh; exit 1").start()


def test_a_log_that_grew_too_large_is_put_aside(tmp_path: Path) -> None:
    with (tmp_path / "server.log").open("wb") as log:
        log.truncate(17 * 1024 * 1024)

    with pytest.raises(ServerExited):
        server(tmp_path, "exit 1").start()
    assert (tmp_path / "server.log").stat().st_size == 0


def test_a_server_that_ignores_the_request_is_stopped_by_force(tmp_path: Path) -> None:
    stubborn = server(tmp_path, STUBBORN)
    stubborn.start()
    pid = read_pid(tmp_path / "pid")
    stubborn.stop(grace=timedelta(milliseconds=100))

    assert pid is not None
    assert not is_server(pid, directory=tmp_path)
    assert not (tmp_path / "pid").exists()


def test_stopping_and_killing_what_never_ran_does_nothing(tmp_path: Path) -> None:
    idle = server(tmp_path, STUBBORN)
    idle.kill()
    idle.stop()

    assert idle.pid is None


def test_starting_twice_keeps_the_process(tmp_path: Path) -> None:
    stubborn = server(tmp_path, STUBBORN)
    stubborn.start()
    first = stubborn.pid
    stubborn.start()
    second = stubborn.pid
    stubborn.kill()

    assert first == second


def test_an_orphan_is_stopped_by_force_when_it_must(tmp_path: Path) -> None:
    stubborn = server(tmp_path, STUBBORN)
    stubborn.start()
    stop_orphan(tmp_path / "pid", directory=tmp_path, grace=timedelta(milliseconds=100))

    wait_until(lambda: stubborn.pid is None, timeout=5, what="the orphan ends")
    assert not (tmp_path / "pid").exists()


def test_a_process_that_is_not_our_server_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid}\n")
        stop_orphan(tmp_path / "pid", directory=tmp_path)
        alive = stranger.poll() is None
        stranger.kill()

    assert alive


@pytest.mark.parametrize("text", [None, "", "no number"])
def test_without_a_process_id_there_is_no_orphan(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "pid").write_text(text)
    stop_orphan(tmp_path / "pid", directory=tmp_path)

    assert not (tmp_path / "pid").exists()


def test_a_taken_port_is_exchanged_and_a_free_one_kept(busy_port: int) -> None:
    free = pick_port(None)
    kept, moved = keep_or_move([free, busy_port])

    assert kept == free
    assert moved not in {free, busy_port}
    assert is_free(moved)


def test_the_same_port_is_never_given_twice() -> None:
    free = pick_port(None)

    assert len(set(keep_or_move([free, free, 0]))) == 3


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path),
        pytest.raises(LockHeld, match=f"process {os.getpid()} already runs a stack"),
        hold_lock(tmp_path, patience=timedelta(milliseconds=50)),
    ):
        pass
    assert not is_locked(tmp_path)
