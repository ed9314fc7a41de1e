"""The pytest plugin: the fixture ``migration``. It is loaded by pytest itself, and imports the rest when it is used."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from worker.testing.kit import MigrationKit
    from worker.testing.scene import Seed, Server

EMBEDDED, SETTINGS = "embedded", "settings"
_told: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let people choose the server."""
    group = parser.getgroup("migrations")
    group.addoption(
        "--migration-server",
        choices=(EMBEDDED, SETTINGS),
        default=EMBEDDED,
        help="where the fixture `migration` makes its databases: a server of its own, or that of COMPLIANCE_ADMIN_URI",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what writers felt beside migrations."""
    if _told:
        terminalreporter.section("migrations beside writers")
        for line in _told:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def migration_folder() -> Path:
    """The folder of the scripts: that of ``COMPLIANCE_MIGRATIONS``; override it to name another one."""
    from compliance.settings import load_settings  # noqa: PLC0415 - pytest starts without it

    return load_settings(os.environ).migrations  # noqa: TID251 - pytest is the composition root


@pytest.fixture
def migration_seed() -> "Seed | None":
    """What fills the database before a script runs; override it to return a function, or ``read_files(...)``."""
    return None


@pytest.fixture(scope="session")
def migration_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A MongoDB on which databases may be made, once for all tests."""
    from compliance.errors import ConfigurationError  # noqa: PLC0415 - pytest starts without it
    from compliance.settings import load_settings  # noqa: PLC0415 - the same
    from worker.testing.scene import Server  # noqa: PLC0415 - the same

    settings = load_settings(os.environ)  # noqa: TID251 - pytest is the composition root
    if request.config.getoption("--migration-server") == SETTINGS:
        if settings.admin_uri is None:
            raise ConfigurationError("--migration-server=settings: set COMPLIANCE_ADMIN_URI to an administrator's")
        yield Server(admin_uri=settings.admin_uri.get_secret_value(), settings=settings)
        return
    from worker.embedded import open_stack  # noqa: PLC0415 - the same

    with open_stack(tmp_path_factory.mktemp("migration-server"), mongod=settings.mongod) as stack:
        uri = stack.endpoints.mongodb_uri("admin", auth_source="admin")
        yield Server(admin_uri=uri, settings=settings)


@pytest.fixture
def migration(
    migration_server: "Server", migration_folder: Path, migration_seed: "Seed | None"
) -> "Iterator[MigrationKit]":
    """Assertions about the scripts of ``migration_folder``."""
    from dataclasses import replace  # noqa: PLC0415 - beside its only use

    from worker.testing.kit import MigrationKit  # noqa: PLC0415 - pytest starts without it

    settings = migration_server.settings.model_copy(update={"migrations": migration_folder})
    kit = MigrationKit(server=replace(migration_server, settings=settings), seed=migration_seed, tell=_told.append)
    try:
        yield kit
    finally:
        kit.close()
