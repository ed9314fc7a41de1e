"""Our own collections, indexes and roles: what an older release or a hand left is seen, and mended."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from faults import Died
from migrated import leave_the_lease_behind, names, schemas, succeeds, write_scripts
from waiting import wait_until

from compliance.errors import ConfigurationError, StepRefused
from compliance.foundation import find_differences
from compliance.health import CHECKS, Scope
from compliance.login import find_login, refuse_other_rights
from compliance.mongo import Document
from compliance.roles import Grants, Role, role_name
from worker.services import connect
from worker.up import provision_stack

FOUNDATION = "v000_pre_foundation"
HELD = {"state": "running", "locks": ["subject:1"]}


def damage(deployment: Deployment) -> None:
    own = deployment.admin.compliance
    own["jobs"].drop_index("ux_job_lock")
    own["jobs"].drop_index("ix_job_state")
    own["jobs"].create_index([("created_at", 1)], name="ix_job_state", unique=False)
    own.drop_collection("outbox")


def problems(deployment: Deployment) -> tuple[str, ...]:
    services = deployment.services()
    return CHECKS["declared_indexes"](
        Scope(databases=services.databases, data_map=services.data_map, trust=services.trust)
    ).problems


def test_what_is_missing_or_differs_is_reported_and_up_restores_it_once(deployment: Deployment) -> None:
    admin = deployment.admin
    before = schemas(admin)
    damage(deployment)
    lines: list[str] = []
    runner = deployment.runner(report=lines.append)

    assert [problem.partition(" in t_")[0] for problem in problems(deployment)] == [
        "collection outbox is missing",
        "index jobs.ux_job_lock is missing",
        "index jobs.ix_job_state differs in key",
    ]
    assert names(runner.pending()) == [FOUNDATION]
    assert names(runner.up(dry_run=True)) == [FOUNDATION]
    assert "  replace index jobs.ix_job_state" in lines
    assert schemas(admin) != before

    assert names(runner.up()) == [FOUNDATION]
    assert schemas(admin) == before
    assert problems(deployment) == ()
    assert runner.up() == runner.up(dry_run=True) == ()
    steps = [entry["details"] for entry in deployment.entries(entity_id=FOUNDATION, action="migration.step")]
    assert steps[-1]["created"] == ["collection outbox", "index jobs.ux_job_lock", "index jobs.ix_job_state"]
    assert len(deployment.entries(entity_id=FOUNDATION, action="migration.applied")) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unique": True},
        {"partialFilterExpression": {"state": "running", "locks": {"$exists": True}}},
        {"unique": True, "partialFilterExpression": {"state": "running"}},
        {"unique": True, "partialFilterExpression": {"state": "running", "locks": {"$exists": True}}, "sparse": False},
    ],
)
def test_an_index_of_the_same_name_and_keys_is_replaced_unless_its_options_are_the_same(
    deployment: Deployment, options: dict[str, Any]
) -> None:
    jobs = deployment.admin.compliance["jobs"]
    before = jobs.index_information()["ux_job_lock"]
    jobs.drop_index("ux_job_lock")
    jobs.create_index("locks", name="ux_job_lock", **options)

    deployment.runner().up()

    found = jobs.index_information()["ux_job_lock"]
    assert {key: found.get(key) for key in before} == before
    assert find_differences(deployment.worker) == []


def test_a_hidden_index_is_replaced(deployment: Deployment) -> None:
    own = deployment.admin.compliance
    own.command("collMod", "jobs", index={"name": "ix_job_ring", "hidden": True})

    assert "index jobs.ix_job_ring differs in hidden" in problems(deployment)[0]

    deployment.runner().up()
    assert problems(deployment) == ()


def test_running_jobs_that_share_a_lock_are_named_before_the_index_is_back(deployment: Deployment) -> None:
    jobs = deployment.admin.compliance["jobs"]
    damage(deployment)
    jobs.insert_many([{"_id": name, **HELD} for name in ("a", "b")])

    with pytest.raises(StepRefused, match=r"index jobs\.ux_job_lock cannot be unique"):
        deployment.runner().up()

    jobs.delete_one({"_id": "b"})
    deployment.runner().up()
    assert jobs.index_information()["ux_job_lock"]["unique"]


WALK = {
    "v001_data_count.py": '''
        """Count every visit of a document."""


        def up(ctx):
            """A walk that would count a repeat."""
            ctx.transform("things", where={}, fields=("n",), function=count)


        def count(document):
            return {"n": document["n"] + 1}


        def down(ctx):
            """Nothing."""
    ''',
}


def test_a_script_that_died_goes_on_where_it_stood_although_an_index_is_mended_before(
    empty: Deployment, tmp_path: Path
) -> None:
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": 0} for n in range(6)])
    folder = write_scripts(tmp_path / "scripts", WALK)
    deployment = empty.with_settings(migrations=folder, batch_docs=2, lease=timedelta(seconds=0.3))
    stop_after_a_batch(deployment)
    assert {found["n"] for found in admin.app["things"].find()} == {0, 1}
    leave_the_lease_behind(admin)
    admin.compliance["jobs"].drop_index("ux_job_lock")

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")

    assert [found["n"] for found in admin.app["things"].find()] == [1] * 6
    assert find_differences(deployment.worker) == []


def stop_after_a_batch(deployment: Deployment) -> None:
    things = deployment.admin.app["things"]

    def should_stop() -> bool:
        if things.find_one({"n": 1}) is not None:
            raise Died
        return False

    with pytest.raises(Died):
        replace(deployment.runner(), should_stop=should_stop).up()


def compare(deployment: Deployment, role: Role, grants: Grants) -> None:
    databases = connect(deployment.addresses, role, app_name="test")
    with databases.client:
        refuse_other_rights(find_login(databases), role, grants)


@pytest.mark.parametrize("role", Role)
def test_a_role_of_another_release_is_seen_and_provisioning_mends_it(empty: Deployment, role: Role) -> None:
    admin, grants = empty.admin, empty.runner().grants
    name = role_name(role, empty.name)
    other = {"resource": {"db": empty.name, "collection": "other"}, "actions": ["find"]}

    compare(empty, role, grants)
    for granted, words in (
        ([], "lacks"),
        ([*privileges_of(empty, name), other], f"too much: find on {empty.name}.oth"),
    ):
        admin.client.admin.command("updateRole", name, privileges=granted)
        with pytest.raises(ConfigurationError, match=f"{name}.*{words}.*doctor --provision"):
            compare(empty, role, grants)
        provision_stack(empty.settings, empty.stack.endpoints)
        compare(empty, role, grants)


def privileges_of(deployment: Deployment, name: str) -> list[Document]:
    found = deployment.admin.client.admin.command("rolesInfo", name, showPrivileges=True)["roles"][0]
    privileges: list[Document] = found["privileges"]
    return privileges


def test_a_role_that_is_gone_is_seen(empty: Deployment) -> None:
    name = role_name(Role.WORKER, empty.name)
    empty.admin.client.admin.command("dropRole", name)

    with pytest.raises(ConfigurationError, match=f"{name} lacks"):
        compare(empty, Role.WORKER, empty.runner().grants)

    provision_stack(empty.settings, empty.stack.endpoints)


def test_of_a_user_with_roles_of_its_own_only_what_it_lacks_counts(empty: Deployment) -> None:
    own, read = empty.admin.compliance, {"role": "read", "db": empty.name}
    own.command("grantRolesToUser", Role.SENDER.value, roles=[read])
    compare(empty, Role.SENDER, empty.runner().grants)

    own.command("revokeRolesFromUser", Role.SENDER.value, roles=[role_name_of_sender(empty)])
    with pytest.raises(ConfigurationError, match="lacks insert on"):
        compare(empty, Role.SENDER, empty.runner().grants)


def role_name_of_sender(deployment: Deployment) -> Document:
    return {"role": role_name(Role.SENDER, deployment.name), "db": "admin"}


def test_migrations_do_not_begin_with_roles_of_another_release(deployment: Deployment) -> None:
    name = role_name(Role.SEALER, deployment.name)
    deployment.admin.client.admin.command("updateRole", name, privileges=[])

    with pytest.raises(ConfigurationError, match="doctor --provision"):
        deployment.runner().up()
