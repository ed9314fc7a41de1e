"""``compliance.health.check``: run named checks over a scope."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from compliance.datamap.subject import parse_subject_id
from compliance.errors import UnknownName
from compliance.health import CHECKS, Scope
from compliance.health.report import run_checks
from compliance.jobs.run import Run
from worker.alert import alert_failed_check
from worker.job import ACTOR, Payload, job
from worker.services import Services


def _known_check(name: str) -> str:
    try:
        CHECKS[name]
    except UnknownName as error:
        raise ValueError(str(error)) from None
    return name


class CheckHealth(Payload):
    """Which checks (all when empty), over one person or everything, and what asked for it."""

    checks: tuple[Annotated[str, AfterValidator(_known_check)], ...] = ()
    subject_id: str | None = None
    cause: Literal["request", "change", "schedule"] = "request"


@job("health.check", CheckHealth, queue="compliance.health")
def health_check(payload: CheckHealth, run: Run, services: Services) -> None:
    """Look, keep what was found, and tell the person on call unless a person asked, who reads the answer."""
    subject_id = parse_subject_id(payload.subject_id, services.data_map) if payload.subject_id else None
    scope = Scope(
        databases=services.databases,
        data_map=services.data_map,
        trust=services.trust,
        subject_id=subject_id,
        pseudonyms=services.pseudonyms,
        check=run.check,
    )
    failed = run_checks(run, scope, payload.checks, cause=payload.cause, actor=ACTOR)
    if payload.cause != "request":
        for check, problems in failed.items():
            alert_failed_check(check, problems=problems, request_id=run.job.request_id)
