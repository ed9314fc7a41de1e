"""Run checks and keep what they found in ``health_checks``, with an audit entry, in one transaction.

Document shape (``health_checks``)::

    {_id: "<request>:<check>", request_id: str, check: str, status: str, problems: [str], looked_at: int,
     subject_id: ObjectId | str | UUID | null, cause: str, checked_at: date}
"""

from collections.abc import Callable, Mapping, Sequence

from compliance.audit.entry import Detail, Entry
from compliance.datamap.subject import to_entity_id
from compliance.errors import ComplianceError
from compliance.health.check import CHECKS, Finding, Scope, Status
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document, Session

HEALTH_CHECKS = "health_checks"


def run_checks(
    run: Run,
    scope: Scope,
    names: Sequence[str],
    *,
    cause: str,
    actor: str,
    also: Callable[[Sequence[str], Session], None] = lambda _failed, _session: None,
) -> Mapping[str, int]:
    """Run the checks *names* over *scope*, end the job, and return how many problems each check found, if any.

    Args:
        run: The job.
        scope: What to look at.
        names: Registered checks; all when empty.
        cause: What asked for it: ``change`` (a change event), ``schedule`` or ``request``.
        actor: For the audit entry.
        also: Called with the names of the checks that failed, in the transaction that keeps what they found.
    """
    chosen = {name: CHECKS[name] for name in names or CHECKS}
    documents = [_check(run, scope, name, cause) for name in chosen]
    failed = [document["check"] for document in documents if document["status"] != Status.OK.value]
    problems = {document["check"]: len(document["problems"]) for document in documents if document["check"] in failed}
    details: dict[str, Detail] = {"checks": list(chosen), "failed": failed, "cause": cause}
    entry = Entry(
        event=run.job.request_id,
        entity_type="user" if scope.subject_id else "database",
        entity_id=to_entity_id(scope.subject_id) if scope.subject_id else scope.databases.name,
        action="health.checked",
        created_at=run.clock.now(),
        performed_by=actor,
        outcome="failure" if failed else "success",
        request_id=run.job.request_id,
        details=details,
    )

    def effect(session: Session) -> Outcome:
        scope.databases.compliance[HEALTH_CHECKS].insert_many(documents, session=session)
        also(failed, session)
        return Outcome(entries=(entry,), result={"checks": len(documents), "failed": failed})

    run.commit(effect)
    return problems


def _check(run: Run, scope: Scope, name: str, cause: str) -> Document:
    try:
        finding, status = CHECKS[name](scope), None
    except ComplianceError as error:
        finding, status = Finding(problems=(str(error),)), Status.ERROR
    return {
        "_id": f"{run.job.request_id}:{name}",
        "request_id": run.job.request_id,
        "check": name,
        "status": (status or finding.status).value,
        "problems": list(finding.problems),
        "looked_at": finding.looked_at,
        "subject_id": scope.subject_id,
        "cause": cause,
        "checked_at": run.clock.now(),
    }
