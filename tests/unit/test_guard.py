"""The high-water mark of the sealed log outside the database."""

from pathlib import Path

import pytest

from compliance.audit.guard import Guard, Mark
from compliance.errors import ConfigurationError

ONE, TWO = Mark(3, bytes(32)), Mark(5, bytes(range(32)))


def test_marks_are_kept_and_never_go_down(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "new" / "guard.json")
    assert guard.marks() == {}

    guard.keep({"a/2026": TWO, "a/2027": ONE})
    guard.keep({"a/2026": ONE})

    assert guard.marks() == {"a/2026": TWO, "a/2027": ONE}


def test_without_a_file_nothing_is_kept() -> None:
    Guard(None).keep({"a/2026": TWO})

    assert Guard(None).marks() == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {}}', '{"a": {"size": 1, "root": "AA=="}}', '{"a": 7}'])
def test_a_file_that_cannot_be_read_is_never_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "guard.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="restore it"):
        Guard(path).keep({"a/2026": TWO})

    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"guard\.json cannot be written"):
        Guard(tmp_path / "file" / "guard.json").keep({"a/2026": TWO})
