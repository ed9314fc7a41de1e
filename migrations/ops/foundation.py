"""The audit database, the roles, and the collections of ``<app>_compliance`` with their indexes."""

from typing import TYPE_CHECKING

from compliance.errors import ConfigurationError
from compliance.foundation import commands_of, ensure_own, find_differences
from compliance.mongo import Databases, driver_errors
from compliance.provision import ensure_audit_log, ensure_roles
from compliance.roles import Grants
from migrations.command import Command
from migrations.ledger import HISTORY, LEASE, SOURCES
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands


WITH_THE_FIRST_EVENT = frozenset({LEASE, HISTORY, SOURCES})  # the run itself has written to them before


def ensure(ctx: "Hands") -> None:
    """Create what is missing of our own collections and indexes, and replace an index that differs."""
    if ctx.is_dry_run:
        step = ctx.begin(Kind.DDL, "our own collections")
        for difference in find_differences(ctx.databases) if step is not None else ():
            ctx.report(f"{'replace' if difference.differs_in else 'create'} {difference.thing}")
            for body in () if difference.collection in WITH_THE_FIRST_EVENT else commands_of(difference):
                ctx.sketch.add(Command(body=body, database="compliance"))
        return
    changed = ensure_own(ctx.databases)  # before the step is looked for: the journal may be among what is missing
    step = ctx.begin(Kind.DDL, "our own collections")
    for line in changed:
        ctx.report(f"created {line}")
    if step is not None and changed:
        ctx.finish(step, {"op": "foundation", "created": changed})


def is_complete(databases: Databases) -> bool:
    """Whether ``ensure`` would find nothing to do."""
    return not find_differences(databases)


def require_provisioned(databases: Databases, grants: Grants) -> list[str]:
    """Make sure of audit log and roles before the first entry: an insert would create the log without validator.

    Raises:
        ConfigurationError: When they are missing or differ and this user, such as the migrator, may not mend them; the
            message names the command that does.
    """
    try:
        with driver_errors():
            return [*ensure_audit_log(databases), *ensure_roles(databases, grants)]
    except ConfigurationError:
        raise ConfigurationError(
            "the audit database or the roles are missing or differ, and this user may not create them; "
            "run `compliance doctor --provision` as an administrator, then migrate again"
        ) from None
