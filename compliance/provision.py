"""Create what needs rights that no process of ours holds: roles, users and the audit database.

Run as an administrator by ``compliance doctor --provision`` and by the embedded stack. Every step looks at the
observed state first and changes only what differs.
"""

from collections.abc import Mapping

from pymongo.errors import CollectionInvalid

from compliance.audit.schema import INDEXES, VALIDATORS
from compliance.errors import ConfigurationError
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import (
    AUDIT_LOG,
    Grants,
    Right,
    Role,
    altering_actions,
    lacking,
    privileges,
    rights,
    role_name,
)

SHOWN = 3


def provision(databases: Databases, *, grants: Grants, passwords: Mapping[Role, str]) -> list[str]:
    """Create or correct the audit collection, the roles, and the users of *passwords*; return what was changed.

    Raises:
        ConfigurationError: When the connection of *databases* may not administer users.
    """
    with driver_errors():
        return [
            *ensure_audit_log(databases),
            *ensure_roles(databases, grants),
            *(f"user {role.value}" for role, password in passwords.items() if _ensure_user(databases, role, password)),
        ]


def ensure_audit_log(databases: Databases) -> list[str]:
    """Create the collections of the audit database with validators and indexes where missing; return what was made."""
    changed = []
    present_collections = databases.audit.list_collection_names()
    for name, validator in VALIDATORS.items():
        if name in present_collections:
            continue
        try:
            databases.audit.create_collection(name, validator=validator, validationLevel="strict")
        except CollectionInvalid:
            pass  # somebody else was faster
        else:
            changed.append(f"collection {name}")
    present = databases.audit[AUDIT_LOG].index_information()
    for name, keys in INDEXES.items():
        if name not in present:
            databases.audit[AUDIT_LOG].create_index(list(keys.items()), name=name)
            changed.append(f"index {name}")
    return changed


def ensure_roles(databases: Databases, grants: Grants) -> list[str]:
    """Create the roles that are missing and correct those whose privileges differ; return their names."""
    admin = databases.client.admin
    names = [role_name(role, databases.name) for role in Role]
    found = admin.command("rolesInfo", names, showPrivileges=True)["roles"]
    present = {role["role"]: role["privileges"] for role in found}
    changed = []
    for role in Role:
        name, wanted = role_name(role, databases.name), privileges(role, databases.name, grants)
        if name not in present:
            admin.command("createRole", name, privileges=wanted, roles=[])
        elif rights(present[name]) != rights(wanted):
            admin.command("updateRole", name, privileges=wanted, roles=[])
        else:
            continue
        changed.append(f"role {name}")
    return changed


def altering_rights(databases: Databases) -> frozenset[str]:
    """Return the actions of the connected user that could alter the audit log; empty is as it should be.

    Without access control the server reports no privileges although everything is allowed: then ``anyAction``.
    """
    status = _connection_status(databases)
    if not status["authenticatedUsers"]:
        return frozenset({"anyAction"})
    return altering_actions(status["authenticatedUserPrivileges"], databases.name)


def refuse_excess(databases: Databases) -> None:
    """Return if the connected user cannot alter the audit log; every process asks at its start.

    Raises:
        ConfigurationError: Naming what it could do.
    """
    rights = altering_rights(databases)
    if rights:
        raise ConfigurationError(
            f"this MongoDB user could alter the audit log ({', '.join(sorted(rights))}); connect as a user that "
            "`compliance doctor --provision` created"
        )


def refuse_other_rights(databases: Databases, role: Role, grants: Grants) -> None:
    """Return if the connected user may do what *role* needs, and nothing else; a read-only operation.

    A user that holds another role of ours instead is compared with that one: where one connection string serves for
    all, it is known for whom. Of a user with more roles than ours, such as a service's own, only what it lacks counts.

    Raises:
        ConfigurationError: Naming what it lacks or has too much, and the command that mends it.
    """
    status = _connection_status(databases)
    if not status["authenticatedUsers"]:
        return  # no access control: ``refuse_excess`` says so
    names = {role_name(known, databases.name): known for known in Role}
    held = {found["role"] for found in status["authenticatedUserRoles"]}
    ours = [known for name, known in names.items() if name in held] or [role]
    wanted = rights(right for known in ours for right in privileges(known, databases.name, grants))
    found = rights(status["authenticatedUserPrivileges"])
    lacks = lacking(wanted, found)
    exceeds = sorted(found - wanted) if held <= names.keys() else []
    faults = [f"{verb} {_shown(some)}" for verb, some in (("lacks", lacks), ("has too much:", exceeds)) if some]
    if faults:
        raise ConfigurationError(
            f"the role {', '.join(role_name(known, databases.name) for known in ours)} {'; it '.join(faults)}; "
            "run `compliance doctor --provision` as an administrator"
        )


def _shown(some: list[Right]) -> str:
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return (
        ", ".join(f"{action} on {database}.{collection or '*'}" for database, collection, action in some[:SHOWN]) + more
    )


def _connection_status(databases: Databases) -> Document:
    with driver_errors():
        found: Document = databases.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    return found


def _ensure_user(databases: Databases, role: Role, password: str) -> bool:
    own = databases.compliance
    roles = [{"role": role_name(role, databases.name), "db": "admin"}]
    found = own.command("usersInfo", role.value)["users"]
    if not found:
        own.command("createUser", role.value, pwd=password, roles=roles)
        return True
    own.command("updateUser", role.value, pwd=password, roles=roles)
    return False
