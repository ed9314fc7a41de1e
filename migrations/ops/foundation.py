"""The audit database, the roles, and the collections of ``<app>_compliance`` with their indexes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compliance.errors import ConfigurationError
from compliance.mongo import Databases, driver_errors
from compliance.provision import ensure_audit_log, ensure_roles

if TYPE_CHECKING:
    from migrations.context import Context

OWN: dict[str, dict[str, list[tuple[str, int]]]] = {
    "jobs": {"ix_job_state_due": [("state", 1), ("run_at", 1)], "ix_job_created": [("created_at", -1)]},
    "erasure_requests": {
        "ix_request_subject": [("subject_id", 1)],
        "ix_request_state_due": [("state", 1), ("due_at", 1)],
    },
    "holds": {"ix_hold_subject": [("subject_id", 1)]},
    "consent_events": {"ix_consent_event_subject": [("subject_id", 1), ("type", 1), ("occurred_at", 1)]},
    "health_checks": {"ix_check_at": [("checked_at", -1)], "ix_check_subject": [("subject_id", 1)]},
    "watch_tokens": {},
    "migration_history": {},
    "migration_lease": {},
    "declared_schema": {},
    "set_aside": {},
}


def ensure(ctx: "Context") -> None:
    """Create what is missing; with the rights of a migrator, roles and audit log must be there already.

    Raises:
        ConfigurationError: When they are not, with the command that creates them.
    """
    with driver_errors():
        present = set(ctx.databases.compliance.list_collection_names())
    missing = [name for name in OWN if name not in present]
    if ctx.is_dry_run:
        for name in missing:
            ctx.report(f"create collection {ctx.databases.compliance.name}.{name}")
        return
    changed = _with_admin_rights(ctx) + _own_collections(ctx, missing)
    for line in changed:
        ctx.report(f"created {line}")
    if changed:
        ctx.commit({"op": "foundation", "created": changed})


def require_audit_log(databases: Databases) -> list[str]:
    """Make sure that the audit log is there before the first entry: an insert would create it without validator."""
    with _administrator_needed(), driver_errors():
        return ensure_audit_log(databases)


def _with_admin_rights(ctx: "Context") -> list[str]:
    with _administrator_needed(), driver_errors():
        return [*ensure_audit_log(ctx.databases), *ensure_roles(ctx.databases, ctx.grants)]


@contextmanager
def _administrator_needed() -> Iterator[None]:
    try:
        yield
    except ConfigurationError:
        raise ConfigurationError(
            "the audit database or the roles are missing or differ, and this user may not create them; "
            "run `compliance doctor --provision` as an administrator, then migrate again"
        ) from None


def _own_collections(ctx: "Context", missing: list[str]) -> list[str]:
    created = []
    with driver_errors():
        for name in missing:
            ctx.databases.compliance.create_collection(name)
            created.append(f"collection {name}")
        for name, indexes in OWN.items():
            present = ctx.databases.compliance[name].index_information()
            for index, keys in indexes.items():
                if index not in present:
                    ctx.databases.compliance[name].create_index(keys, name=index)
                    created.append(f"index {index}")
    return created
