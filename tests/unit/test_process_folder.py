"""The folder of a process: private, gone with it, and at the latest when the next one makes its own."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from waiting import wait_until

from worker.telemetry.folder import ProcessFolder, remove_left_behind

PREFIX = "things-"

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def hold(telling: Connection) -> None:
    """Make a folder with a file in it and a child that lives on, tell of them, and wait."""
    folder = ProcessFolder.make(PREFIX)
    (folder.path / "counter.db").touch()
    child = os.fork()
    if child:
        telling.send((folder.path, child))
    signal.pause()


@contextmanager
def holder() -> Iterator[tuple[BaseProcess, Path, int]]:
    """A process with a folder, the folder, and the id of its child."""
    context = multiprocessing.get_context("fork")
    told, telling = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(telling,))
    process.start()
    assert told.poll(20)
    path, child = told.recv()
    try:
        yield process, path, child
    finally:
        process.kill()
        process.join()
        os.kill(child, signal.SIGKILL)


def test_a_folder_is_private_and_goes_with_all_that_it_holds(directory: Path) -> None:
    folder = ProcessFolder.make(PREFIX)
    (folder.path / "counter.db").touch()
    mode, found = folder.path.stat().st_mode, list(directory.iterdir())
    folder.remove()

    assert found == [folder.path]
    assert folder.path.name.startswith(PREFIX)
    assert mode & 0o777 == 0o700
    assert list(directory.iterdir()) == []


def test_what_a_killed_process_left_is_removed_when_the_next_one_begins() -> None:
    with holder() as (_, left, _):
        pass

    def is_gone() -> bool:
        ProcessFolder.make(PREFIX).remove()
        return not left.exists()

    wait_until(is_gone, timeout=10, what="the folder of the dead is removed")


def test_a_folder_stays_while_its_process_or_a_child_of_that_lives() -> None:
    with holder() as (process, path, _):
        remove_left_behind(PREFIX)
        assert (path / "counter.db").exists()
        process.kill()
        process.join()
        remove_left_behind(PREFIX)
        assert (path / "counter.db").exists()


def test_each_process_has_a_folder_of_its_own(directory: Path) -> None:
    first, second = ProcessFolder.make(PREFIX), ProcessFolder.make(PREFIX)
    found = set(directory.iterdir())
    first.remove()
    second.remove()

    assert len(found) == 2
    assert found == {first.path, second.path}


def test_links_files_folders_of_others_and_other_names_are_left_alone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "elsewhere").mkdir()
    (directory / f"{PREFIX}link").symlink_to(directory / "elsewhere")
    (directory / f"{PREFIX}file").touch()
    (directory / f"new-{PREFIX}1").mkdir()
    remove_left_behind(PREFIX)
    kept = {path.name for path in directory.iterdir()}

    assert kept == {"elsewhere", f"{PREFIX}link", f"{PREFIX}file", f"new-{PREFIX}1"}

    (directory / f"{PREFIX}theirs").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    remove_left_behind(PREFIX)

    assert (directory / f"{PREFIX}theirs").exists()
