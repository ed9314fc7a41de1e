"""What a command writes is there as a whole, or not at all."""

import os
import threading
from pathlib import Path

import pytest

from compliance.errors import InvalidPayload
from compliance.statefile import read_file
from worker.cli import files
from worker.cli.files import write_output


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "last"
    write_output(b"one", output)
    before = output.stat().st_ino

    write_output(b"two", output)

    assert (output.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (b"two", ["last"])
    assert output.stat().st_ino != before


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "last"
    write_output(b"one", output)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidPayload, match=r"last cannot be written \(No space left on device\)"):
        write_output(b"two", output)

    assert (output.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (b"one", ["last"])


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"one")
    link.symlink_to(target)

    write_output(b"two", link)

    assert (link.is_symlink(), target.read_bytes()) == (True, b"two")


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_output(b"one", pipe)
    reader.join(10)

    assert (got, pipe.is_fifo()) == ([b"one"], True)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match=r"last cannot be written \(No such file or directory\)"):
        write_output(b"one", tmp_path / "nowhere" / "last")
    with pytest.raises(InvalidPayload, match=r"last cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "last")


def test_without_a_file_it_goes_to_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_output(b"\x00one", None)
    files.sys.stdout.flush()

    assert capfdbinary.readouterr().out == b"\x00one"
