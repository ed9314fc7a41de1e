"""The audit database, the roles, and the collections of ``<app>_compliance`` with their indexes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pymongo import ASCENDING, DESCENDING, IndexModel

from compliance.errors import ConfigurationError
from compliance.mongo import Databases, driver_errors
from compliance.provision import ensure_audit_log, ensure_roles

if TYPE_CHECKING:
    from migrations.context import Context

WAITING = {"state": "queued"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The partial ones hold unfinished jobs only: to take, ring or take over costs the same beside ten million done ones.
OWN: dict[str, tuple[IndexModel, ...]] = {
    "jobs": (
        IndexModel(
            [("kind", ASCENDING), ("priority", DESCENDING), ("deadline", ASCENDING)],
            name="ix_job_waiting",
            partialFilterExpression=WAITING,
        ),
        IndexModel([("published_at", ASCENDING)], name="ix_job_ring", partialFilterExpression=WAITING),
        IndexModel(
            [("locks", ASCENDING)],
            name="ix_job_lock_waiting",
            partialFilterExpression={**WAITING, "locks": {"$exists": True}},
        ),
        IndexModel([("lease.until", ASCENDING)], name="ix_job_lease", partialFilterExpression={"state": "running"}),
        IndexModel(
            [("locks", ASCENDING)],
            name="ux_job_lock",  # two running jobs never have one lock
            unique=True,
            partialFilterExpression={"state": "running", "locks": {"$exists": True}},
        ),
        IndexModel([("state", ASCENDING), ("created_at", DESCENDING)], name="ix_job_state"),
        IndexModel([("created_at", DESCENDING)], name="ix_job_created"),
        IndexModel(
            [("finished_at", ASCENDING)],
            name="ix_job_finished",
            partialFilterExpression={"finished_at": {"$gt": EPOCH}},  # a query since a later time implies it
        ),
    ),
    "erasure_requests": (
        IndexModel([("subject_id", ASCENDING)], name="ix_request_subject"),
        IndexModel([("state", ASCENDING), ("due_at", ASCENDING)], name="ix_request_state_due"),
    ),
    "holds": (IndexModel([("subject_id", ASCENDING)], name="ix_hold_subject"),),
    "consent_events": (
        IndexModel(
            [("subject_id", ASCENDING), ("type", ASCENDING), ("occurred_at", ASCENDING)],
            name="ix_consent_event_subject",
        ),
    ),
    "health_checks": (
        IndexModel([("checked_at", DESCENDING)], name="ix_check_at"),
        IndexModel([("subject_id", ASCENDING)], name="ix_check_subject"),
    ),
    "outbox": (),
    "watch_tokens": (),
    "schedules": (),
    "migration_history": (),
    "migration_lease": (),
    "declared_schema": (),
    "set_aside": (),
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
            absent = [index for index in indexes if index.document["name"] not in present]
            if absent:
                created += [f"index {index}" for index in ctx.databases.compliance[name].create_indexes(absent)]
    return created
