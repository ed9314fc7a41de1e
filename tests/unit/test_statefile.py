"""A state file is the old one or the new one, and is never replaced by a process that could not read it."""

import os
from pathlib import Path
from typing import Any

import pytest
from bson import Timestamp

from compliance.errors import ConfigurationError
from compliance.statefile import StateFile
from worker.lookout import places_file

SAYS = "what was seen"


def test_what_is_kept_comes_back_whatever_kind_it_is(tmp_path: Path) -> None:
    content = {"a": {"ts": Timestamp(7, 3)}, "b": {"_data": "82", "_typeBits": b"\x01"}, "c": None, "d": 5}
    file = StateFile(tmp_path / "new" / "state.json", SAYS)
    assert file.read() == {}

    file.change(lambda kept: {**kept, **content})
    file.change(lambda kept: {**kept, "e": "x"})

    assert file.read() == {**content, "e": "x"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".state.json.lock", "state.json"]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json", SAYS)
    file.change(lambda _: {"a": 1})

    def fail(_: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        file.change(fail)

    assert file.read() == {"a": 1}


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"a": {"$oid": "x"}}', '{"a": {"$timestamp": 7}}', "\xff"])
def test_a_file_that_makes_no_sense_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text.encode("latin-1"))
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match="it says what was seen, so restore it"):
        StateFile(path, SAYS).change(lambda kept: kept)

    assert path.read_bytes() == before


def test_a_file_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / f".state.json.{os.getpid()}").mkdir()

    with pytest.raises(ConfigurationError, match=r"state\.json cannot be written \(Is a directory\)"):
        StateFile(path, SAYS).change(lambda kept: kept)


def test_without_a_path_nothing_is_kept() -> None:
    file = places_file()
    file.change(lambda _: {"a": 1})

    assert file.read() == {}
