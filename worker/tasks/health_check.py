"""``compliance.health.check``: run named checks over a scope."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from compliance.datamap.subject import parse_subject_id
from compliance.health import Scope
from compliance.health.report import run_checks
from compliance.jobs.run import Run
from worker.job import ACTOR, Payload, job
from worker.services import Services


class CheckHealth(Payload):
    """Which checks (all when empty), over one person or everything, and what asked for it."""

    checks: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,60}$")], ...] = ()
    subject_id: str | None = None
    cause: Literal["request", "change", "schedule"] = "request"


@job("health.check", CheckHealth, queue="compliance.health")
def health_check(payload: CheckHealth, run: Run, services: Services) -> None:
    """Look, and keep what was found."""
    subject_id = parse_subject_id(payload.subject_id, services.data_map) if payload.subject_id else None
    scope = Scope(databases=services.databases, data_map=services.data_map, subject_id=subject_id)
    run_checks(run, scope, payload.checks, cause=payload.cause, actor=ACTOR)
