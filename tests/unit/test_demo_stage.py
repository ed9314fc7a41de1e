"""The demonstration keeps to its own folder, its own settings and 80 columns."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from compliance.errors import ConfigurationError
from compliance.settings import DATA_MAP, Settings, load_settings
from worker.demo.show import Show
from worker.demo.stage import MARKER, clear_home, own_environ, own_settings

USER = Settings.model_validate(
    {
        "environment": "staging",
        "mongodb_uri": SecretStr("mongodb://production/"),
        "redis_url": SecretStr("redis://production/"),
        "mongodb_database": "precious",
        "data_map": Path("/elsewhere/map.yaml"),
    }
)


def shown() -> tuple[Show, list[str]]:
    lines: list[str] = []
    return Show(lines.append), lines


def test_no_address_of_the_user_is_kept(tmp_path: Path) -> None:
    own = own_settings(USER, tmp_path)

    assert own.mongodb_uri is None
    assert own.redis_url is None
    assert own.mongodb_database == "spotify_ai_agent"
    assert own.data_map == DATA_MAP
    assert own.environment == "staging"


def test_child_processes_see_no_address_from_variables_files_or_secrets(tmp_path: Path) -> None:
    (tmp_path / "MONGODB_URI").write_text("mongodb://production/")
    (tmp_path / "redis").write_text("redis://production/")
    environ = own_environ(
        {"MONGODB_URI": "mongodb://x/", "REDIS_URL_FILE": str(tmp_path / "redis"), "SENTRY_DSN": "dsn", "PATH": "/bin"}
    )

    seen = load_settings(environ, secrets_directory=tmp_path)

    assert (seen.mongodb_uri, seen.redis_url, seen.sentry_dsn) == (None, None, None)
    assert environ["PATH"] == "/bin"


def test_a_home_of_an_earlier_run_is_emptied(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    clear_home(home)
    (home / "log").mkdir()
    (home / "log" / "worker.log").write_text("old")
    (home / "state.json").write_text("{}")

    clear_home(home)

    assert {path.name for path in home.iterdir()} == {MARKER, "lock"}


def test_what_a_link_in_the_home_points_at_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    clear_home(tmp_path / "demo")
    (tmp_path / "demo" / "link").symlink_to(precious)

    clear_home(tmp_path / "demo")

    assert (precious / "file").read_text() == "mine"
    assert not (tmp_path / "demo" / "link").exists()


def test_a_folder_without_our_marker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(ConfigurationError, match="not made by `compliance demo`"):
        clear_home(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_chapters_are_counted_and_paragraphs_fit_80_columns() -> None:
    show, lines = shown()
    show.chapter("One", "word " * 60)
    show.chapter("Two", "short")
    show.point("word " * 60)

    assert "1. One" in lines
    assert "2. Two" in lines
    assert max(map(len, lines)) < 80


def test_a_table_is_aligned_and_a_long_cell_is_cut() -> None:
    show, lines = shown()
    show.table([("a", 1), ("longer", "x" * 100)])
    show.table([])

    assert lines[0] == "  a       1"
    assert lines[1].endswith("x…")
    assert [len(line) for line in lines] == [11, 79]
