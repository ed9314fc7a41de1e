"""``compliance.migration.run``: apply or undo migrations, as the migrator."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Self

import structlog
from pydantic import StringConstraints, model_validator

from compliance.jobs.run import Outcome, Run
from compliance.roles import Role
from migrations.migrate import build_runner
from migrations.plan import Direction
from worker.job import Payload, job
from worker.services import Services

log = structlog.get_logger(__name__)


class MigrateDatabase(Payload):
    """Which way, and how far; down needs a target."""

    direction: Direction = Direction.UP
    target: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,80}$")] | None = None
    dry_run: bool = False

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let migrations wait for each other instead of failing on their lease."""
        del subjects
        return ("migrations",)

    @model_validator(mode="after")
    def _down_has_a_target(self) -> Self:
        if self.direction is Direction.DOWN and self.target is None:
            raise ValueError("down needs a target")
        return self


@job("migration.run", MigrateDatabase, queue="compliance.migration")
def migration_run(payload: MigrateDatabase, run: Run, services: Services) -> None:
    """Run migrations under their own lease; a repeat finds nothing to do."""
    databases = services.connect_as(Role.MIGRATOR)
    with databases.client:
        runner = replace(
            build_runner(services.settings, databases, actor="worker", report=_report),
            should_stop=lambda: run.should_stop() or run.interruption is not None,
        )
        if payload.direction is Direction.UP:
            done = runner.up(payload.target, dry_run=payload.dry_run)
        else:
            done = runner.down(str(payload.target), dry_run=payload.dry_run)
    names = [revision.name for revision in done]
    run.commit(lambda _: Outcome(result={"direction": payload.direction.value, "revisions": names}))


def _report(line: str) -> None:
    log.info("migration.progress", line=line.strip())
