"""``compliance.health.check``: run named checks over a scope."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator

from compliance.datamap.subject import SubjectId, parse_subject_id
from compliance.erasure.request import Requests
from compliance.errors import UnknownName
from compliance.health import CHECKS, Scope
from compliance.health.report import run_checks
from compliance.jobs.job import Job
from compliance.jobs.run import Run
from compliance.mongo import Session
from worker.alert import alert_failed_check
from worker.job import ACTOR, Payload, job
from worker.returns import ask_look
from worker.services import Services

RESIDUAL = "no_residual"


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


def _could_be_erased(subject_id: SubjectId | None, services: Services) -> bool:
    """Whether a look could find somebody; of a person whom the application deleted nobody asked for more."""
    return subject_id is None or Requests(services.databases).completed_for(subject_id) is not None


@job("health.check", CheckHealth, queue="compliance.health")
def health_check(payload: CheckHealth, run: Run, services: Services) -> None:
    """Look, keep what was found, and tell the person on call unless a person asked, who reads the answer.

    Where something is left of people who were erased, it is looked for whose it is, and that is erased again.
    """
    subject_id = parse_subject_id(payload.subject_id, services.data_map) if payload.subject_id else None
    scope = Scope(
        databases=services.databases,
        data_map=services.data_map,
        trust=services.trust,
        subject_id=subject_id,
        pseudonyms=services.pseudonyms,
        check=run.check,
    )
    looks: list[Job | None] = []

    def look_for_who(failed: Sequence[str], session: Session) -> None:
        looks.clear()
        if RESIDUAL in failed and payload.cause != "request" and _could_be_erased(subject_id, services):
            cause = f"look-{hashlib.sha256(run.job.request_id.encode()).hexdigest()[:24]}"
            looks.append(ask_look(services, cause=cause, session=session))

    failed = run_checks(run, scope, payload.checks, cause=payload.cause, actor=ACTOR, also=look_for_who)
    for look in looks:
        if look is not None:
            services.publish(look)
    if payload.cause != "request":
        for check, problems in failed.items():
            alert_failed_check(check, problems=problems, request_id=run.job.request_id)
