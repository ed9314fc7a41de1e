"""Operations of migrations without scripts: a context under the lease, as a script gets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from deployment import Deployment

from compliance.health import CHECKS, Scope
from compliance.mongo import Databases, Document
from migrations.context import Context
from migrations.ledger import lease
from migrations.ops.ddl import Patience

HASTY = Patience(budget=timedelta(milliseconds=100), pause=timedelta(milliseconds=50), attempts=100)


@contextmanager
def stepping(deployment: Deployment, *, lines: list[str] | None = None, **changes: Any) -> Iterator[Context]:
    """Yield the context of a script; *changes* are its fields, ``databases`` among them."""
    runner = deployment.runner()
    databases: Databases = changes.pop("databases", runner.databases)
    length = timedelta(seconds=30)
    with lease(databases, owner="test", clock=runner.clock, length=length) as run:
        yield Context(
            databases=databases,
            revision="v001_pre_x",
            actor="test",
            grants=runner.grants,
            report=(lines if lines is not None else []).append,
            run=run,
            **{"patience": HASTY, **changes},
        )


@contextmanager
def dry(deployment: Deployment, *, lines: list[str]) -> Iterator[Context]:
    """Yield the context of a script that writes nothing."""
    runner = deployment.runner()
    yield Context(
        databases=runner.databases,
        revision="v001_pre_x",
        actor="test",
        grants=runner.grants,
        report=lines.append,
        run=None,
    )


def problems(deployment: Deployment, check: str) -> tuple[str, ...]:
    """What the health check *check* finds."""
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, trust=services.trust)
    return CHECKS[check](scope).problems


def declaration(deployment: Deployment, name: str) -> Document | None:
    """What is declared under the id *name*."""
    return deployment.admin.compliance["declared_schema"].find_one({"_id": name})
