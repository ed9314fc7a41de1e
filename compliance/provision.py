"""Create what needs rights that no process of ours holds: roles, users and the audit database.

Run as an administrator by ``compliance doctor --provision`` and by the embedded stack. Every step looks at the
observed state first and changes only what differs.
"""

from collections.abc import Mapping

from pymongo.errors import CollectionInvalid

from compliance.audit.schema import INDEXES, VALIDATORS
from compliance.mongo import Databases, driver_errors
from compliance.roles import AUDIT_LOG, Grants, Role, privileges, rights, role_name

MECHANISMS = ["SCRAM-SHA-256"]  # RFC 7677; the server would keep a hash for SHA-1, too


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


def _ensure_user(databases: Databases, role: Role, password: str) -> bool:
    own = databases.compliance
    roles = [{"role": role_name(role, databases.name), "db": "admin"}]
    found = own.command("usersInfo", role.value)["users"]
    if not found:
        own.command("createUser", role.value, pwd=password, roles=roles, mechanisms=MECHANISMS)
        return True
    own.command("updateUser", role.value, pwd=password, roles=roles, mechanisms=MECHANISMS)
    return False
