"""Real servers once per module, a database as if it were new for each test.

Not once per session: a mongod that has created and dropped a thousand databases takes its time for everything.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from deployment import Deployment
from hypothesis import HealthCheck, settings
from recycling import Recycler

from worker.embedded import Stack, open_stack

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=80, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")  # noqa: TID251 - the composition root of the tests


FIRST = ("acceptance", "fault", "integration")  # folders whose modules take longest: none of them may come last


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long modules first, so that at the end no process waits for another one."""
    folders = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: folders.get(item.path.parent.name, len(FIRST)))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real MongoDB replica set and a real Valkey."""
    with open_stack(tmp_path_factory.mktemp("stack"), test_commands=True) as running:
        yield running


@pytest.fixture
def moment() -> datetime:
    """A fixed time."""
    return datetime(2026, 3, 31, 12, 0, 0, 123000, tzinfo=UTC)


@pytest.fixture(scope="module")
def provisioned_databases(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Recycler]:
    """Databases that were provisioned."""
    with ExitStack() as cleanup:
        yield Recycler(stack, cleanup, migrated=False, reuses=is_reusable(request))


@pytest.fixture(scope="module")
def migrated_databases(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Recycler]:
    """Databases that were provisioned and migrated."""
    with ExitStack() as cleanup:
        yield Recycler(stack, cleanup, migrated=True, reuses=is_reusable(request))


def is_reusable(request: pytest.FixtureRequest) -> bool:
    """Elsewhere processes are killed, which may hold on to what they wrote."""
    return request.path.parent.name in ("integration", "acceptance")


@pytest.fixture
def empty(provisioned_databases: Recycler) -> Iterator[Deployment]:
    """An application database, provisioned and not migrated, that nobody else uses."""
    with provisioned_databases.lend() as found:
        yield found


@pytest.fixture
def deployment(migrated_databases: Recycler) -> Iterator[Deployment]:
    """An application database, provisioned and migrated, that nobody else uses."""
    with migrated_databases.lend() as found:
        yield found
