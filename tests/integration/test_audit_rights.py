"""A user that could alter the audit log is noticed, and no process has one."""

import pytest
from deployment import Deployment

from compliance.login import find_login
from compliance.mongo import Databases, open_client
from compliance.roles import Role


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ARCHIVER])
def test_no_process_holds_a_right_to_alter_the_log(empty: Deployment, role: Role) -> None:
    assert find_login(empty.services(role).databases).altering_rights == frozenset()


def test_the_archiver_can_remove_entries_and_is_noticed(empty: Deployment) -> None:
    assert find_login(empty.services(Role.ARCHIVER).databases).altering_rights == {"remove"}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["readWrite@{0}_audit"], {"update", "remove", "dropCollection"}),
        (["dbAdmin@{0}_audit"], {"collMod", "dropDatabase", "createIndex"}),
        (["readWriteAnyDatabase@admin"], {"update", "remove"}),
        (["root@admin"], {"update", "remove", "collMod", "dropCollection"}),
        (["compliance_worker@{0}@admin", "dbOwner@{0}"], set()),
    ],
    ids=lambda value: ",".join(sorted(value)),
)
def test_a_user_with_more_rights_than_needed_is_noticed(
    empty: Deployment, roles: list[str], expected: set[str]
) -> None:
    admin = empty.admin
    user = f"over_{empty.name}"
    granted = [text.format(empty.name).rsplit("@", 1) for text in roles]
    admin.compliance.command(
        "createUser", user, pwd="secret", roles=[{"role": role, "db": database} for role, database in granted]
    )
    uri = (
        f"mongodb://{user}:secret@127.0.0.1:{empty.stack.endpoints.mongod_ports[0]}/?authSource={empty.name}_compliance"
    )

    with open_client(uri, app_name="test") as client:
        found = find_login(Databases(client, empty.name)).altering_rights

    assert found >= expected
    assert bool(found) == bool(expected)
