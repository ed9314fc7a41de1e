"""What the user of a connection may do, judged by what the server says about it."""

from dataclasses import replace

import pytest

from compliance.errors import ConfigurationError
from compliance.login import Login, refuse_excess, refuse_other_rights
from compliance.roles import Grants, Role, privileges, role_name

GRANTS = Grants(erasable=["users"], importable=["users"])
OPEN = Login(database="app", is_authenticated=False, roles=frozenset(), privileges=())


def login(*roles: Role) -> Login:
    return Login(
        database="app",
        is_authenticated=True,
        roles=frozenset(role_name(role, "app") for role in roles),
        privileges=[found for role in roles for found in privileges(role, "app", GRANTS)],
    )


def test_without_access_control_everybody_could_alter_the_log() -> None:
    assert OPEN.altering_rights == {"anyAction"}
    with pytest.raises(ConfigurationError, match=r"alter the audit log \(anyAction\).*doctor --provision"):
        refuse_excess(OPEN)


def test_without_access_control_no_rights_are_compared() -> None:
    refuse_other_rights(OPEN, Role.WORKER, GRANTS)


@pytest.mark.parametrize("role", Role)
def test_each_role_of_ours_is_as_it_should_be(role: Role) -> None:
    refuse_other_rights(login(role), role, GRANTS)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ARCHIVER])
def test_no_process_is_refused_with_its_own_role(role: Role) -> None:
    refuse_excess(login(role))


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
def test_no_process_may_have_the_rights_of_the_archiver(role: Role) -> None:
    with pytest.raises(ConfigurationError, match=r"could alter the audit log \(remove\)"):
        refuse_excess(login(role, Role.ARCHIVER))


def test_one_user_for_all_is_compared_with_the_roles_that_it_has() -> None:
    refuse_other_rights(login(Role.WORKER, Role.MIGRATOR), Role.SENDER, GRANTS)


def test_a_user_with_no_role_of_ours_is_compared_with_the_one_that_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"compliance_sender@app lacks insert on app_compliance\.outbox"):
        refuse_other_rights(login(), Role.SENDER, GRANTS)


def test_a_right_too_much_counts_unless_the_user_has_roles_of_its_own() -> None:
    sender = login(Role.SENDER)
    more = replace(sender, privileges=[*sender.privileges, *privileges(Role.SEALER, "app", GRANTS)])

    with pytest.raises(ConfigurationError, match="compliance_sender@app has too much: "):
        refuse_other_rights(more, Role.SENDER, GRANTS)
    refuse_other_rights(replace(more, roles=more.roles | {"read"}), Role.SENDER, GRANTS)
