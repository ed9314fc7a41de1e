"""Take a request in: accept it, or reject it because of a legal hold."""

from dataclasses import replace
from datetime import datetime

from compliance.audit.entry import Detail, Entry
from compliance.erasure.holds import Holds
from compliance.erasure.progress import TICK, Erasure
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import normalise
from compliance.errors import HoldsChanged, LegalHoldActive, UnknownSubject
from compliance.jobs.job import Prefix
from compliance.jobs.run import Outcome
from compliance.mongo import Session


def receive(erasure: Erasure, *, dry_run: bool) -> None:
    """Record the request, and accept or reject it, in one transaction.

    Raises:
        UnknownSubject: When there is no such person and never was an erasure of one.
        LegalHoldActive: When it was rejected, behind the commit.
    """
    also = {"earlier": _earlier(erasure), "normalised_id": _normalised_id(erasure), "tenant": erasure.tenant}
    now = erasure.run.clock.now()
    refusals: list[LegalHoldActive] = []

    def effect(session: Session) -> Outcome:
        refusals.clear()
        erasure.requests.receive(
            erasure.request_id,
            erasure.subject_id,
            dry_run=dry_run,
            map_digest=erasure.data_map.digest,
            now=now,
            session=session,
            also={**also, "rest_of": _rest_of(erasure, session)},
        )
        try:
            Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        except LegalHoldActive as error:
            refusals.append(error)
            answer = _to_rejected(erasure, error, now=now + TICK, session=session)
        else:
            changes = {"accepted_at": now}
            erasure.requests.move(erasure.request_id, Stage.ACCEPTED, changes, now=now, session=session)
            answer = replace(erasure.entry("erasure.accepted", {}), created_at=now + TICK)
        asked = replace(erasure.entry("erasure.requested", {"dry_run": dry_run}), created_at=now)
        return Outcome(entries=(asked, answer), checkpoint=erasure.checkpoint())

    erasure.commit(effect)
    if refusals:
        raise refusals[0]


def reject(erasure: Erasure, error: LegalHoldActive) -> None:
    """Record that a hold ended the request, unless that is recorded already."""
    if Stage(erasure.requests.get(erasure.request_id)["state"]) is Stage.REJECTED:
        return

    def effect(session: Session) -> Outcome:
        entry = _to_rejected(erasure, error, now=erasure.run.clock.now(), session=session)
        return Outcome(entries=(entry,), checkpoint=erasure.checkpoint())

    erasure.commit(effect)


def _to_rejected(erasure: Erasure, error: LegalHoldActive, *, now: datetime, session: Session) -> Entry:
    holds = Holds(erasure.databases)
    because = [hold for hold in holds.active(*erasure.names, now=now, session=session) if hold.collection is None]
    if not because:
        raise HoldsChanged("the legal hold ended meanwhile; tried again")
    holds.lean_on(because, session=session)
    changes = {"reason": str(error), "held": [hold.stored for hold in because]}
    erasure.requests.move(erasure.request_id, Stage.REJECTED, changes, now=now, session=session)
    details: dict[str, Detail] = {"code": type(error).__name__, "cases": [hold.case_id for hold in because]}
    return replace(erasure.entry("erasure.rejected", details, outcome="denied"), created_at=now)


def _earlier(erasure: Erasure) -> str | None:
    """Return the request that erased the person before, if one did."""
    subject, before = erasure.data_map.subject, erasure.requests.completed_for(*erasure.names)
    if before is None and not erasure.is_present:
        raise UnknownSubject(
            f"no document of {subject.collection} has this {subject.key}; check the id and the database"
        )
    return None if before is None else str(before["_id"])


def _rest_of(erasure: Erasure, session: Session) -> str | None:
    """Return the request whose rest this one is, where it was asked for because a hold ended."""
    if not erasure.request_id.startswith(Prefix.HELD):
        return None
    return erasure.requests.continued_by(erasure.request_id, *erasure.names, session=session)


def _normalised_id(erasure: Erasure) -> str | None:
    value = erasure.identity.values.get(erasure.data_map.subject.key)
    return erasure.pseudonyms.make(normalise(value)) if erasure.pseudonyms and value is not None else None
