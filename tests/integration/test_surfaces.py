"""What a real MongoDB keeps beside the collections when somebody is erased."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment

from compliance.datamap.model import DataMap
from compliance.datamap.outside import PreImages, Surfaces
from compliance.datamap.subject import Identity
from compliance.erasure import surfaces
from compliance.erasure.surface import OPLOG, PACKAGES, PRE_IMAGES, PROFILE, State, Surface
from compliance.erasure.surfaces import LOOKS, PROVISION, Scope, look_at_surfaces
from compliance.erasure.sweep import compile_needles
from compliance.mongo import Databases
from compliance.period import Period
from compliance.provision import ensure_roles
from compliance.roles import PRE_IMAGES as KEPT_BY_MIGRATIONS
from compliance.roles import Grants, Role, role_name
from compliance.transfer.exported import packages_in

ANN = ObjectId()
HOUR = timedelta(hours=1)


def scope(deployment: Deployment, databases: Databases | None = None, **changes: Any) -> Scope:
    found = databases or deployment.worker
    return replace(
        Scope(
            databases=found,
            data_map=deployment.services().data_map,
            names=(ANN,),
            needles=compile_needles([Identity({"id": ANN, "email": "ann@example.org"})]),
            collections=frozenset({"users", "tracks"}),
            done_at=found.server_time(),
        ),
        **changes,
    )


def declaring(data_map: DataMap, **changes: Any) -> DataMap:
    return data_map.model_copy(update={"surfaces": Surfaces(**changes)})


def test_a_worker_may_look_at_every_surface(deployment: Deployment) -> None:
    found = look_at_surfaces(scope(deployment), LOOKS)

    assert [surface.name for surface in found] == [name for name, _ in LOOKS]
    assert not [surface for surface in found if surface.todo == PROVISION]


def test_the_oplog_has_a_date_from_its_size_and_its_rate(deployment: Deployment) -> None:
    wanted = scope(deployment)
    found = surfaces.oplog(wanted)

    assert found.state is State.EXPIRES
    assert found.expires_at is not None
    assert found.expires_at > wanted.done_at
    assert "least retention of 0 hours" in found.evidence


def test_an_oplog_that_begins_after_the_erasure_is_clean(deployment: Deployment) -> None:
    assert surfaces.oplog(scope(deployment, done_at=datetime(2020, 1, 1, tzinfo=UTC))).state is State.CLEAN


def test_without_pre_images_nothing_is_kept_of_changes(deployment: Deployment) -> None:
    assert surfaces.pre_images(scope(deployment)).state is State.CLEAN


@pytest.fixture
def streamed(deployment: Deployment) -> Iterator[Deployment]:
    """A collection with pre-images: one of Ann, one of Bob, both from before the erasure."""
    database = deployment.admin.app
    database.create_collection("streamed", changeStreamPreAndPostImages={"enabled": True})
    database["streamed"].insert_many([{"_id": 1, "by": ANN}, {"_id": 2, "by": ObjectId()}])
    database["streamed"].delete_many({"_id": {"$in": [1, 2]}})
    yield deployment
    database.drop_collection("streamed")


def stored_pre_images(deployment: Deployment) -> list[Any]:
    (info,) = deployment.admin.app.list_collections(filter={"name": "streamed"})
    stored = deployment.admin.client.config["system.preimages"]
    return [found["preImage"]["_id"] for found in stored.find({"_id.nsUUID": info["info"]["uuid"]})]


def test_pre_images_go_with_the_oplog_where_nothing_else_is_set(streamed: Deployment) -> None:
    wanted = scope(streamed)
    found = surfaces.pre_images(wanted)

    assert found.state is State.EXPIRES
    assert found.evidence == "streamed keep pre-images as long as the oplog reaches back"
    assert stored_pre_images(streamed) == [1, 2]


@pytest.fixture
def expiring(streamed: Deployment) -> Iterator[Deployment]:
    def set_to(value: Any) -> None:
        options = {"preAndPostImages": {"expireAfterSeconds": value}}
        streamed.admin.client.admin.command({"setClusterParameter": {"changeStreamOptions": options}})

    set_to(7200)
    yield streamed
    set_to("off")


def test_pre_images_that_expire_have_their_date(expiring: Deployment) -> None:
    wanted = scope(expiring)
    found = surfaces.pre_images(wanted)

    assert found.expires_at == (wanted.done_at + 2 * HOUR).replace(microsecond=0)


def test_those_of_the_person_alone_are_purged_where_the_data_map_says_so(streamed: Deployment) -> None:
    data_map = declaring(streamed.services().data_map, pre_images=PreImages.PURGE)
    refused = look_at_surfaces(scope(streamed, data_map=data_map), LOOKS)

    assert [surface.name for surface in refused if surface.todo == PROVISION] == [PRE_IMAGES]
    assert stored_pre_images(streamed) == [1, 2]

    ensure_roles(streamed.admin, data_map.grants())
    try:
        found = surfaces.pre_images(scope(streamed, data_map=data_map))
        again = surfaces.pre_images(scope(streamed, data_map=data_map))
    finally:
        ensure_roles(streamed.admin, streamed.services().data_map.grants())

    assert found.state is State.CLEAN
    assert found.evidence.startswith("1 pre-images in which the person stood were removed")
    assert again.evidence.startswith("0 ")
    assert stored_pre_images(streamed) == [2]


@pytest.fixture
def profiled(deployment: Deployment) -> Iterator[Deployment]:
    deployment.admin.app.command("profile", 2)
    yield deployment
    deployment.admin.app.command("profile", 0)
    deployment.admin.app.drop_collection("system.profile")


def test_a_profiler_that_saw_others_only_is_clean(profiled: Deployment) -> None:
    profiled.admin.app["users"].find_one({"email": "bob@example.org"})
    found = surfaces.profile(scope(profiled))

    assert found.state is State.CLEAN
    assert found.evidence == "the profiler is at level 2; 0 of its entries hold an identifier of the person"


def test_an_entry_of_the_profiler_that_names_the_person_is_found(profiled: Deployment) -> None:
    profiled.admin.app["users"].find_one({"email": "ann@example.org"})
    profiled.admin.app.command("profile", 0)  # what is there stays
    found = surfaces.profile(scope(profiled))

    assert (found.name, found.state) == (PROFILE, State.UNKNOWN)
    assert "at level 0; 1 of its entries" in found.evidence
    assert "system.profile.drop()" in str(found.todo)


def test_logs_and_backups_go_by_the_data_map(deployment: Deployment) -> None:
    data_map = declaring(deployment.services().data_map, logs=Period(days=14), backups=Period(months=1))
    wanted = scope(deployment, data_map=data_map, done_at=datetime(2026, 1, 31, 12, tzinfo=UTC))

    assert surfaces.server_logs(wanted).expires_at == datetime(2026, 2, 14, 12, tzinfo=UTC)
    assert surfaces.backups(wanted).expires_at == datetime(2026, 2, 28, 12, tzinfo=UTC)


def test_what_the_data_map_does_not_say_is_unknown_with_what_to_write(deployment: Deployment) -> None:
    data_map = declaring(deployment.services().data_map)
    wanted = scope(deployment, data_map=data_map)

    assert "surfaces.logs" in str(surfaces.server_logs(wanted).todo)
    assert "surfaces.backups" in str(surfaces.backups(wanted).todo)


def test_a_copy_of_a_migration_that_names_the_person_is_found(deployment: Deployment) -> None:
    before = surfaces.copies_of_migrations(scope(deployment))
    deployment.admin.app[KEPT_BY_MIGRATIONS].insert_one({"before": [{"path": "by", "value": ANN}]})
    after = surfaces.copies_of_migrations(scope(deployment))

    assert (before.state, after.state) == (State.CLEAN, State.UNKNOWN)


def test_who_was_not_provisioned_since_learns_what_to_do(deployment: Deployment) -> None:
    admin, name = deployment.admin, role_name(Role.WORKER, deployment.name)
    stored = admin.client.admin.command("rolesInfo", name, showPrivileges=True)["roles"][0]["privileges"]
    cluster = [one for one in stored if one["resource"].get("cluster")]
    admin.client.admin.command("revokePrivilegesFromRole", name, privileges=cluster)
    try:
        found = look_at_surfaces(scope(deployment), LOOKS)
    finally:
        ensure_roles(admin, deployment.services().data_map.grants())

    assert [surface.name for surface in found if surface.todo == PROVISION] == [OPLOG]


def exported(deployment: Deployment, **values: Any) -> None:
    name = str(values["package"])
    assert deployment.run("export.run", values, f"x-{name}").state == "done"


def test_packages_are_told_by_whom_they_are_about_and_by_what_they_hold(deployment: Deployment) -> None:
    directory = deployment.services().transfer_dir
    directory.mkdir(parents=True, exist_ok=True)
    look = packages_in(directory)
    before = look(scope(deployment))
    users = deployment.admin.app.get_collection("users")
    users.insert_one({"_id": ANN}, bypass_document_validation=True)
    exported(deployment, package="mine", subject_id=str(ANN))
    exported(deployment, package="all-users", collection="users")
    exported(deployment, package="others", collection="playlists")
    found = look(scope(deployment))
    earlier = look(scope(deployment, done_at=datetime(2020, 1, 1, tzinfo=UTC), names=(ObjectId(),)))
    (directory / "mine" / "manifest.json").write_text("{}")

    assert (before.name, before.state) == (PACKAGES, State.CLEAN)
    assert found.state is State.UNKNOWN
    assert "1 are about the person, 1 hold collections" in found.evidence
    assert "mine" not in str(found)
    assert earlier.state is State.CLEAN
    assert "and 1 cannot be read" in look(scope(deployment)).evidence


def test_a_folder_that_is_not_there_holds_no_package(deployment: Deployment, tmp_path: Path) -> None:
    found: Surface = packages_in(tmp_path / "missing")(scope(deployment))

    assert found.state is State.CLEAN


def test_a_worker_reads_pre_images_only_where_the_data_map_purges_them(deployment: Deployment) -> None:
    grants = deployment.services().data_map.grants()

    assert grants == Grants(erasable=grants.erasable, importable=grants.importable)
    assert declaring(deployment.services().data_map, pre_images=PreImages.PURGE).grants().purges
