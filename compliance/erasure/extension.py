"""Extend the time for the answer to a request, with its entry (GDPR Art. 12(3))."""

from datetime import datetime

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.datamap.subject import to_entity_id
from compliance.erasure.deadline import Reason, extended_due
from compliance.erasure.request import Requests
from compliance.erasure.stage import NEXT, Stage
from compliance.errors import InvalidPayload
from compliance.jobs.desk import UNFINISHED
from compliance.jobs.ledger import JOBS
from compliance.mongo import Databases, Session


def extend(
    databases: Databases, request_id: str, *, months: int, reason: Reason, now: datetime, actor: str, log: AuditLog
) -> datetime:
    """Move the due date of an open request, and the deadline of its job; return the new one.

    Raises:
        UnknownName: When there is no such request.
        InvalidPayload: When it is answered already, or the law does not allow it any more.
    """

    def transaction(session: Session) -> datetime:
        request = Requests(databases).get(request_id, session=session)
        if Stage(request["state"]) not in NEXT:
            raise InvalidPayload(f"erasure request {request_id} is {request['state']}: nothing is due any more")
        due = extended_due(request["received_at"], months=months, due=request["due_at"], now=now)
        Requests(databases).set_due(request, due, reason=reason.value, now=now, session=session)
        databases.compliance[JOBS].update_one(
            {"_id": request_id, "state": {"$in": [state.value for state in UNFINISHED]}},
            {"$set": {"deadline": due}},
            session=session,
        )
        entry = Entry(
            event=f"{request_id}#extended#{months}",
            entity_type="user",
            entity_id=to_entity_id(request["subject_id"]),
            action="erasure.extended",
            created_at=now,
            performed_by=actor,
            request_id=request_id,
            details={"months": months, "reason": reason.value, "due_at": due.isoformat()},
        )
        log.append(entry, session=session)
        return due

    return databases.transact(transaction)
