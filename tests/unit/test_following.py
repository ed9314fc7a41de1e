"""How far a migration is shows as a bar on a terminal, and nowhere else."""

import io
import re

import pytest

from migrations.progress import Progress
from worker.cli.following import followed


class Terminal(io.StringIO):
    """What looks like a terminal."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let stderr be a terminal; called within a test, for pytest puts its own in place before each."""
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return shown


def plain(shown: Terminal) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())


def test_a_terminal_shows_what_runs_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with followed() as follow:
        assert follow is not None
        follow(Progress(what="v001 (1 of 1): walk people", documents=30, of=120, seconds=1.0))

    shown = plain(terminal)
    assert "v001 (1 of 1): walk people" in shown
    assert "30/120" in shown
    assert re.search(r"-:--:--|\d:\d\d:\d\d", shown)


def test_a_terminal_says_why_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with followed() as follow:
        assert follow is not None
        follow(Progress(what="walk people", documents=1, of=2, waiting=("paused by hand", "p99 of writes")))

    assert "walk people (waiting: paused by hand; p99 of writes)" in plain(terminal)


def test_where_nobody_would_see_a_bar_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr", shown)
    with followed() as follow:
        assert follow is None

    assert shown.getvalue() == ""
