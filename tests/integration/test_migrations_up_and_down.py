"""Migrations up, down and up again, and dry runs, which write nothing."""

from typing import Any

import pytest
from deployment import Deployment
from migrated import NAMES, hashes, names, schemas, snapshot, user

from compliance.errors import StepFailed, UnknownName


@pytest.mark.parametrize("target", [None, "002"])
def test_a_dry_run_shows_everything_and_writes_nothing(empty: Deployment, target: str | None) -> None:
    admin = empty.admin
    if target:
        empty.runner().up(target)
    admin.app["users"].insert_one({"email": "mara@example.org"}, bypass_document_validation=True)
    admin.app["artists"].insert_one({"genres": ["Rock"]}, bypass_document_validation=True)
    before, schema = hashes(admin), schemas(admin)
    lines: list[str] = []

    shown = empty.runner(report=lines.append).up(dry_run=True)

    assert names(shown) == (NAMES[3:] if target else NAMES)
    text = "\n".join(lines)
    assert "create collection versioning with a validator" in text
    assert "create unique index consent.ix_consent_user_type" in text
    assert "backfill 1 documents of users" in text
    assert "transform 1 documents of artists" in text
    assert ("create unique index users.ix_user_email" in text) == (target is None)
    assert hashes(admin) == before
    assert schemas(admin) == schema
    assert "mara" not in text


def test_a_dry_run_on_the_way_down_writes_nothing(deployment: Deployment) -> None:
    admin = deployment.admin
    before, schema = hashes(admin), schemas(admin)
    lines: list[str] = []

    shown = deployment.runner(report=lines.append).down("003", dry_run=True)

    assert names(shown) == NAMES[:3:-1]
    assert any("drop collection consent" in line for line in lines)
    assert hashes(admin) == before
    assert schemas(admin) == schema


def test_down_and_up_again_restores_every_schema_on_the_way(empty: Deployment) -> None:
    admin, runner = empty.admin, empty.runner()
    targets = ("000", "001", "002", "003", "004_pre", "004_data", "004_post", "005", "006")
    on_the_way_up: dict[str, Any] = {}
    for target in targets:
        assert len(runner.up(target)) == 1
        on_the_way_up[target] = schemas(admin)

    for target in reversed(targets[:-1]):
        assert len(runner.down(target)) == 1
        assert schemas(admin) == on_the_way_up[target]

    assert names(runner.up()) == NAMES[1:]
    assert schemas(admin) == on_the_way_up["006"]
    assert len(empty.entries(action="migration.reverted")) == len(NAMES) - 1


def test_several_revisions_go_down_at_once_and_come_back(deployment: Deployment) -> None:
    admin = deployment.admin
    before = schemas(admin)

    assert names(deployment.runner().down("003")) == NAMES[:3:-1]
    assert set(snapshot(admin.app)) == {"users", "artists", "tracks", "playlists", "analytics"}
    assert names(deployment.runner().down("003")) == []

    deployment.migrate()
    assert schemas(admin) == before


def test_down_to_zero_leaves_the_foundation_and_up_restores_the_rest(deployment: Deployment) -> None:
    admin = deployment.admin
    before = schemas(admin)

    deployment.runner().down("zero")
    left = deployment.runner().history.applied()
    without = schemas(admin)
    deployment.runner().up()

    assert list(left) == ["v000_pre_foundation"]
    assert without != before
    assert schemas(admin) == before


def test_collections_that_hold_documents_are_not_dropped_and_nothing_is_half_undone(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["users"].insert_one(user(subscription_type="FREE"))
    before, events = schemas(admin), admin.compliance["migration_history"].count_documents({})

    with pytest.raises(StepFailed, match="users holds documents") as refused:
        deployment.runner().down("000")

    assert "mara" not in str(refused.value)
    assert schemas(admin) == before
    assert admin.compliance["migration_history"].count_documents({}) == events

    deployment.runner().down("000", drop_data=True)
    assert snapshot(admin.app) == {}


def test_an_unknown_target_is_refused_with_the_known_ones(deployment: Deployment) -> None:
    with pytest.raises(UnknownName, match="v006_pre_advanced_indexes"):
        deployment.runner().down("099")
