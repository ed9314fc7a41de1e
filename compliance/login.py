"""The user of a connection: what the server lets it do, and whether that is as it should be."""

from collections.abc import Collection
from dataclasses import dataclass

from compliance.errors import ConfigurationError
from compliance.mongo import Databases, driver_errors
from compliance.roles import (
    Grants,
    Privilege,
    Right,
    Role,
    altering_actions,
    lacking,
    privileges,
    rights,
    role_name,
)

SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What the server said about the user of a connection.

    Attributes:
        database: Name of the application database that the user works on.
        is_authenticated: Whether there is a user; without access control there is none, and everything is allowed.
        roles: Names of its roles, of any database.
        privileges: All that its roles allow.
    """

    database: str
    is_authenticated: bool
    roles: frozenset[str]
    privileges: Collection[Privilege]

    @property
    def altering_rights(self) -> frozenset[str]:
        """The actions that could alter the audit log; none is as it should be. Without access control ``anyAction``."""
        if not self.is_authenticated:  # then the server reports no privileges
            return frozenset({"anyAction"})
        return altering_actions(self.privileges, self.database)


def find_login(databases: Databases) -> Login:
    """Ask the server who *databases* is reached as; a read-only operation."""
    with driver_errors():
        found = databases.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    return Login(
        database=databases.name,
        is_authenticated=bool(found["authenticatedUsers"]),
        roles=frozenset(role["role"] for role in found["authenticatedUserRoles"]),
        privileges=tuple(found["authenticatedUserPrivileges"]),
    )


def refuse_excess(login: Login) -> None:
    """Return if the user cannot alter the audit log; every process asks at its start.

    Raises:
        ConfigurationError: Naming what it could do.
    """
    if login.altering_rights:
        raise ConfigurationError(
            f"this MongoDB user could alter the audit log ({', '.join(sorted(login.altering_rights))}); connect as a "
            "user that `compliance doctor --provision` created"
        )


def refuse_other_rights(login: Login, role: Role, grants: Grants) -> None:
    """Return if the user may do what *role* needs, and nothing else.

    A user that holds another role of ours instead is compared with that one: where one connection string serves for
    all, it is known for whom. Of a user with more roles than ours, such as a service's own, only what it lacks counts.

    Raises:
        ConfigurationError: Naming what it lacks or has too much, and the command that mends it.
    """
    if not login.is_authenticated:
        return  # ``refuse_excess`` says so
    names = {role_name(known, login.database): known for known in Role}
    ours = [known for name, known in names.items() if name in login.roles] or [role]
    wanted = rights(right for known in ours for right in privileges(known, login.database, grants))
    found = rights(login.privileges)
    lacks = lacking(wanted, found)
    exceeds = sorted(found - wanted) if login.roles <= names.keys() else []
    faults = [f"{verb} {_shown(some)}" for verb, some in (("lacks", lacks), ("has too much:", exceeds)) if some]
    if faults:
        raise ConfigurationError(
            f"the role {', '.join(role_name(known, login.database) for known in ours)} {'; it '.join(faults)}; "
            "run `compliance doctor --provision` as an administrator"
        )


def _shown(some: list[Right]) -> str:
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return (
        ", ".join(f"{action} on {database}.{collection or '*'}" for database, collection, action in some[:SHOWN]) + more
    )
