"""The scripts of the reference domain pass the assertions that people's own scripts have to pass."""

from collections.abc import Iterator
from typing import Any

import pytest
from deployment import Stack
from every import sampled
from migrated import NAMES, user

from compliance.mongo import Db
from compliance.settings import Settings
from worker.testing.kit import MigrationKit
from worker.testing.scene import Seed, Server

pytestmark = pytest.mark.timeout(300)

FILLING = ("v003_data_normalise_core", "v004_data_subscription_type", "v004_post_subscription_type")
LEFT = {"users": ("status", "subscription_type"), "artists": ("genres",), "tracks": ("created_at",)}


@pytest.fixture(scope="module")
def kit(stack: Stack) -> Iterator[MigrationKit]:
    uri = stack.endpoints.mongodb_uri("admin", auth_source="admin")
    kit = MigrationKit(server=Server(admin_uri=uri, settings=Settings.model_validate({})))
    try:
        yield kit
    finally:
        kit.close()


def old_documents(database: Db) -> None:
    """What applications wrote before there were validators; nothing that 003 would set aside."""
    users: list[dict[str, Any]] = [user(_id=n, email=f"u{n}@example.org") for n in range(20)]
    for one in users[::2]:
        del one["status"]
    tracks = [{"_id": n, "title": f"Track {n}"} for n in range(5)]
    artists = [{"_id": n, "name": f"Artist {n}", "genres": ["Rock"]} for n in range(5)]
    for name, documents in (("users", users), ("artists", artists), ("tracks", tracks)):
        database[name].insert_many(documents, bypass_document_validation=True)


def whole_documents(database: Db) -> None:
    """What an application writes whose documents the validators take."""
    database["users"].insert_many([user(_id=n, email=f"u{n}@example.org") for n in range(20)])


def seed_of(name: str) -> Seed | None:
    if name not in FILLING:
        return None
    return whole_documents if name.startswith("v004_post") else old_documents


def lasting_seed_of(name: str) -> Seed | None:
    """Without tracks, which get the time of the run: two runs end differently there."""
    seed = seed_of(name)

    def fill(database: Db) -> None:
        if seed is not None:
            seed(database)
            database["tracks"].delete_many({})

    return seed and fill


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_script_is_undone_but_for_the_values_that_it_filled(kit: MigrationKit, name: str) -> None:
    kit.assert_reversible(name, seed=seed_of(name), leaves=LEFT if name in FILLING else {})


def test_what_a_script_fills_is_what_its_way_back_leaves(kit: MigrationKit) -> None:
    with pytest.raises(
        AssertionError, match=r"down of v004_data\S+ does not undo its up: .* differ in subscription_type"
    ):
        kit.assert_reversible(FILLING[1], seed=seed_of(FILLING[1]), leaves={"users": ("status",), "none": ("a",)})


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_script_that_nobody_remembers_changes_nothing(kit: MigrationKit, name: str) -> None:
    kit.assert_idempotent(name, seed=seed_of(name))


@pytest.mark.parametrize("name", sampled(sorted(NAMES[1:], key=lambda name: name not in FILLING)))
def test_a_script_ends_the_same_wherever_it_is_killed(kit: MigrationKit, name: str) -> None:
    kit.assert_resumable(name, seed=lasting_seed_of(name), deaths=3)


@pytest.mark.storm
@pytest.mark.parametrize("name", NAMES[1:])
def test_a_script_ends_the_same_when_it_is_killed_before_any_write(kit: MigrationKit, name: str) -> None:
    kit.assert_resumable(name, seed=lasting_seed_of(name))


@pytest.mark.parametrize("name", FILLING)
def test_a_script_that_fills_loses_no_write_of_others(kit: MigrationKit, name: str) -> None:
    kit.assert_online(name, seed=lasting_seed_of(name))
