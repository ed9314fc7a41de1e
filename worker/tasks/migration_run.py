"""``compliance.migration.run``: apply, undo, plan or verify migrations, as the migrator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Self

import structlog
from pydantic import StringConstraints, model_validator

from compliance.jobs.run import Outcome, Run
from compliance.roles import Role
from migrations.acceptance import LONGEST_REASON
from migrations.migrate import build_runner
from migrations.plan import Direction
from migrations.preview import lines
from migrations.progress import Progress
from migrations.revision import Revision
from migrations.runner import Runner
from migrations.wish import Wish
from worker.alert import alert_emergency
from worker.job import Payload, job
from worker.services import Services

log = structlog.get_logger(__name__)

TELL_EVERY = timedelta(seconds=1)
MOST_LINES = 500  # of a plan, or of what verify found, that the job keeps
LONGEST_LINE = 2000  # characters


class Action(StrEnum):
    """What is done."""

    RUN = "run"
    PLAN = "plan"
    VERIFY = "verify"


class MigrateDatabase(Payload):
    """What to do, which way, and how far; down needs a target. A dry run is a plan."""

    action: Action = Action.RUN
    direction: Direction = Direction.UP
    target: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,80}$")] | None = None
    dry_run: bool = False
    emergency: Annotated[str, StringConstraints(max_length=LONGEST_REASON)] | None = None

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let migrations wait for each other instead of failing on their lease."""
        del subjects
        return ("migrations",)

    @property
    def writes_nothing(self) -> bool:
        """Whether it only shows what would be done."""
        return self.dry_run or self.action is Action.PLAN

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.direction is Direction.DOWN and self.target is None:
            raise ValueError("down needs a target")
        if self.direction is Direction.DOWN and self.emergency is not None:
            raise ValueError("emergency goes with up only")
        if self.action is Action.VERIFY and (self.target is not None or self.dry_run):
            raise ValueError("verify looks at everything that is applied: give it no target and no dry_run")
        return self


@dataclass(slots=True)
class Follower:
    """Keeps in the job how far the migration is, at most once a second."""

    run: Run
    told_at: datetime | None = None

    def hear(self, line: str) -> None:
        """Take a line for people."""
        log.info("migration.progress", line=line.strip())

    def follow(self, progress: Progress) -> None:
        """Take how far it is.

        Raises:
            LeaseLost: When another worker has the job, this one is stopping, or a person asked it to end.
        """
        log.info("migration.progress", line=progress.line)
        now = self.run.clock.now()
        if self.told_at is None or now - self.told_at >= TELL_EVERY:
            checkpoint = {"progress": progress.line, **progress.fields}
            self.run.commit(lambda _: Outcome(checkpoint=checkpoint))
            self.told_at = now


@job("migration.run", MigrateDatabase, queue="compliance.migration")
def migration_run(payload: MigrateDatabase, run: Run, services: Services) -> None:
    """Run migrations under their own lease; a repeat finds nothing to do."""
    follower = Follower(run)
    databases = services.connect_as(Role.MIGRATOR)
    with databases.client:
        runner = replace(
            build_runner(
                services.settings,
                databases,
                actor="worker",
                report=follower.hear,
                follow=follower.follow,
                pseudonyms=services.pseudonyms,
            ),
            should_stop=lambda: run.should_stop() or run.interruption is not None,
            on_emergency=partial(alert_emergency, request_id=run.job.request_id),
        )
        result = _verify(runner) if payload.action is Action.VERIFY else _migrate(payload, runner)
    run.commit(lambda _: Outcome(result=result))


def _migrate(payload: MigrateDatabase, runner: Runner) -> Mapping[str, Any]:
    wish = Wish(target=payload.target, emergency=payload.emergency)
    is_up = payload.direction is Direction.UP
    if payload.writes_nothing:
        found = runner.preview(wish) if is_up else runner.preview_down(str(payload.target))
        return _result(payload, found.revisions) | {"plan": _bounded(list(lines(found)))}
    lacking = runner.unpromoted(wish) if is_up and payload.emergency is not None else []
    done = runner.up(wish=wish) if is_up else runner.down(str(payload.target))
    return _result(payload, done) | ({"emergency": lacking} if lacking else {})


def _result(payload: MigrateDatabase, done: Sequence[Revision]) -> dict[str, Any]:
    return {"direction": payload.direction.value, "revisions": [revision.name for revision in done]}


def _verify(runner: Runner) -> Mapping[str, Any]:
    found = [str(problem) for problem in runner.verify()]
    return {"problems": len(found), "found": _bounded(found)}


def _bounded(lines: Sequence[str]) -> list[str]:
    """Return what a job can hold of *lines*, and say how many are left out."""
    kept = [line[:LONGEST_LINE] for line in lines[:MOST_LINES]]
    return kept if len(lines) <= MOST_LINES else [*kept, f"and {len(lines) - MOST_LINES} lines more"]
