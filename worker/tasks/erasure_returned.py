"""``compliance.erasure.returned``: erase what came back of a person who was erased."""

from collections.abc import Sequence

import structlog

from compliance.datamap.people import find_by_pseudonym
from compliance.datamap.subject import parse_subject_id, parse_tenant
from compliance.erasure.request import Requests
from compliance.erasure.returns import person_of, settle
from compliance.erasure.stage import COMPLETE, Stage
from compliance.errors import InvalidPayload
from compliance.jobs.job import Job
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Session
from worker.job import JOBS, Payload, job, subject_lock
from worker.services import Services
from worker.tasks.erasure_request import EraseSubject, erasure_request

log = structlog.get_logger(__name__)
AT_ONCE = "P0D"
REQUEST = "erasure.request"


class EraseAgain(Payload):
    """Whose data came back, and the request that had erased the person.

    Attributes:
        tenant: Whose person it is, where several organisations share the database.
    """

    subject_id: str
    earlier: str
    tenant: str | None = None

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Wait for whatever else changes or reads out the person, the earlier erasure among it."""
        return tuple(map(subject_lock, subjects))


def _cancelled(cancelled: Job, services: Services, session: Session) -> None:
    JOBS[REQUEST].on_cancel(cancelled, services, session)


def _failed(failed: Job, services: Services, session: Session) -> None:
    JOBS[REQUEST].on_failure(failed, services, session)


@job("erasure.returned", EraseAgain, queue="compliance.erasure", on_cancel=_cancelled, on_failure=_failed)
def erasure_returned(payload: EraseAgain, run: Run, services: Services) -> None:
    """Erase a person again, without a time of grace, in a request of its own that names the earlier one.

    Where the earlier one is not completed, it goes on by itself and finds what came. Where ids are personal and a
    person with this one is there, it is somebody who registered again: told, and left alone.

    Raises:
        InvalidPayload: When there is no earlier request of this person.
    """
    subject_id = parse_subject_id(payload.subject_id, services.data_map)
    tenant, requests = parse_tenant(payload.tenant, services.data_map), Requests(services.databases)
    if requests.find(run.job.request_id) is None:
        earlier = requests.find(payload.earlier)
        if earlier is None or earlier["subject_id"] != subject_id:
            raise InvalidPayload("earlier: there is no erasure request of this person with this id")
        if Stage(earlier["state"]) not in COMPLETE:
            run.commit(lambda _: Outcome(result={"state": "skipped", "earlier_is": earlier["state"]}))
            return
        if _registered_again(payload, run, services):
            log.error("erasure.registered_again", request_id=run.job.request_id)

            def effect(session: Session) -> Outcome:
                settle(services.databases, person_of(subject_id, tenant), now=run.clock.now(), session=session)
                return Outcome(result={"state": "registered_again"})

            run.commit(effect)
            return
    erasure_request(EraseSubject(subject_id=payload.subject_id, tenant=payload.tenant, grace=AT_ONCE), run, services)


def _registered_again(payload: EraseAgain, run: Run, services: Services) -> bool:
    """Whether a root document with a personal key is there: data that came back does not bring a person."""
    if not services.data_map.root_key.personal:
        return False
    found = find_by_pseudonym(
        services.databases.app,
        services.data_map,
        payload.subject_id,
        tenant=parse_tenant(payload.tenant, services.data_map),
        pseudonyms=services.pseudonyms,
        check=run.check,
    )
    return found is not None
