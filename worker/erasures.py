"""Erasures that go on by themselves: when a legal hold has ended, and when the data map is another one.

What is asked for again is decided by compare-and-swap in the transaction that records it, so however many processes
look, and however long none did, each happens once.
"""

import hashlib

import structlog

from compliance.audit.entry import Cause
from compliance.datamap.subject import to_text
from compliance.erasure.holds import Holds
from compliance.erasure.left_out import Hold
from compliance.erasure.request import Requests
from compliance.jobs.desk import Desk
from compliance.jobs.document import from_document
from compliance.jobs.job import Job, Prefix, RequestId, State
from compliance.mongo import Document, Session, driver_errors
from worker.attempt import job_entry
from worker.intake import submit
from worker.job import JOBS
from worker.services import Services

log = structlog.get_logger(__name__)

KIND = "erasure.request"
LIMIT = 100  # in one sweep
TRIED = "tried"  # of a job: the digests of the data maps with which it failed
ANOTHER_MAP_HELPS = ("PlanOutdated", "ErasureIncomplete", "ConfigurationError")


def go_on_without_hold(services: Services) -> list[Job]:
    """Record a job for each request from which a hold that has ended kept data, and return the jobs."""
    holds, requests, now = Holds(services.databases), Requests(services.databases), services.databases.server_time()
    jobs: list[Job | None] = []
    for hold in holds.ended(now=now, limit=LIMIT):
        waiting = requests.held_by(hold.id, limit=LIMIT)
        jobs += [_go_on(request, hold, services) for request in waiting]

        def settle(session: Session, hold_id: str = hold.id) -> None:
            if not requests.held_by(hold_id, limit=1, session=session):
                holds.settle(hold_id, now=now, session=session)

        services.databases.transact(settle)
    return [job for job in jobs if job is not None]


def rest_id(request_id: str, hold_id: str) -> str:
    """Return the request id of the job that goes on with *request_id* once the hold has ended."""
    return Prefix.HELD + hashlib.sha256(f"{request_id}\x00{hold_id}".encode()).hexdigest()[:32]


def _go_on(request: Document, hold: Hold, services: Services) -> Job | None:
    """Record the job for the rest; None where another process was faster."""
    job_id = rest_id(request["_id"], hold.id)
    values = {"subject_id": to_text(request["subject_id"]), "grace": "P0D"}  # there was time to think again
    if "tenant" in request:
        values["tenant"] = to_text(request["tenant"])

    def transaction(session: Session) -> Job | None:
        if not Requests(services.databases).continue_by(request["_id"], job_id, session=session):
            return None
        return submit(
            JOBS[KIND],
            values,
            request_id=job_id,
            origin="erasure",
            services=services,
            session=session,
        )

    job = services.databases.transact(transaction)
    if job is not None:
        log.info("erasure.hold_ended", request_id=request["_id"], job=job_id)
    return job


def note_failure(job: Job, services: Services, session: Session) -> None:
    """Note the data map with which *job* failed, in the transaction that parks it."""
    digest = services.data_map.digest
    services.ledger.jobs.update_one({"_id": job.request_id}, {"$addToSet": {TRIED: digest}}, session=session)


def try_with_other_map(services: Services) -> list[Job]:
    """Queue parked erasures again that have not been tried with the data map of today, and return their jobs."""
    query = {
        "state": State.PARKED.value,
        "kind": KIND,
        "error.code": {"$in": list(ANOTHER_MAP_HELPS)},
        TRIED: {"$exists": True, "$ne": services.data_map.digest},
    }
    with driver_errors():
        found = [from_document(stored) for stored in services.ledger.jobs.find(query, limit=LIMIT)]
    return [job for job in found if _try_again(job.request_id, query, services)]


def _try_again(request_id: RequestId, query: Document, services: Services) -> bool:
    digest, ledger = services.data_map.digest, services.ledger
    event = f"#other-map#{digest[:16]}"
    entry = job_entry(request_id, event, "job.retried", "success", None, services)

    def transaction(session: Session) -> bool:
        noted = ledger.jobs.update_one({"_id": request_id, **query}, {"$addToSet": {TRIED: digest}}, session=session)
        if noted.matched_count == 0:
            return False
        Desk(ledger).retry(request_id, session=session)
        services.log.caused_by(Cause(channel="schedule")).append(entry, session=session)
        return True

    return services.databases.transact(transaction)
