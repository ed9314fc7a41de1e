"""The procedure of an erasure as a durable job.

``receive`` → ``plan`` → (dry run: done) → every step in batches → look again → the person's own document → look
again → done.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from compliance.audit.entry import Detail
from compliance.erasure.certificate import DETAIL
from compliance.erasure.certify import find_surfaces, state_outcome
from compliance.erasure.execute import carry_out
from compliance.erasure.feasible import refuse_impossible_actions, refuse_lookalikes
from compliance.erasure.holds import Holds
from compliance.erasure.notices import open_notices
from compliance.erasure.plan import Step, compile_steps
from compliance.erasure.progress import Erasure
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import normalise
from compliance.erasure.verify import look_again
from compliance.errors import LegalHoldActive, UnknownSubject
from compliance.jobs.run import Outcome
from compliance.mongo import Session

TICK = timedelta(milliseconds=1)  # of the times that MongoDB stores


def erase(erasure: Erasure, *, dry_run: bool) -> None:
    """Erase one person, or with *dry_run* record the plan only.

    Raises:
        UnknownSubject: When there is no such person and never was an erasure of one.
        LegalHoldActive: When a hold forbids it.
        ErasureIncomplete: When an identifier is found again; the request is parked, never completed.
    """
    request = erasure.requests.find(erasure.request_id)
    if request is None:
        _receive(erasure, dry_run=dry_run)
    erasure.recall()
    try:
        _erase_received(erasure, is_planned=bool(request and request["plan"]), dry_run=dry_run)
    except LegalHoldActive as error:
        _reject(erasure, str(error))
        raise


def _erase_received(erasure: Erasure, *, is_planned: bool, dry_run: bool) -> None:
    steps = compile_steps(erasure.data_map)
    if not is_planned:
        _plan(erasure, steps, dry_run=dry_run)
        if dry_run:
            return
    _start(erasure)
    for number, step in enumerate(steps):
        if step.is_root:
            look_again(erasure, skip=(step.collection,))
        carry_out(erasure, step, number=number, total=len(steps))
    look_again(erasure)
    _complete(erasure, steps)


def _receive(erasure: Erasure, *, dry_run: bool) -> None:
    subject = erasure.data_map.subject
    if not erasure.is_present:
        before = erasure.requests.completed_for(*erasure.names)
        if before is None:
            raise UnknownSubject(
                f"no document of {subject.collection} has this {subject.key}; check the id and the database"
            )
    now = erasure.run.clock.now()

    def effect(session: Session) -> Outcome:
        Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        erasure.requests.receive(
            erasure.request_id,
            erasure.subject_id,
            dry_run=dry_run,
            map_digest=erasure.data_map.digest,
            now=now,
            session=session,
            normalised_id=_normalised_id(erasure),
        )
        return Outcome(
            entries=(erasure.entry("erasure.requested", {"dry_run": dry_run}),), checkpoint=erasure.checkpoint()
        )

    erasure.commit(effect)


def _normalised_id(erasure: Erasure) -> str | None:
    value = erasure.identity.values.get(erasure.data_map.subject.key)
    return erasure.pseudonyms.make(normalise(value)) if erasure.pseudonyms and value is not None else None


def _plan(erasure: Erasure, steps: tuple[Step, ...], *, dry_run: bool) -> None:
    refuse_impossible_actions(erasure)
    refuse_lookalikes(erasure)
    counts = [(step, erasure.locator.count(step, after=steps[:number])) for number, step in enumerate(steps)]
    plan = [{"collection": step.collection, "action": step.verb, "documents": count} for step, count in counts if count]
    kept = [_kept(step, count) for step, count in counts if count and step.kept]
    total = sum(count for _, count in counts)

    def effect(session: Session) -> Outcome:
        erasure.requests.move(
            erasure.request_id,
            Stage.PLANNED,
            {"plan": plan, "kept": kept, "map_digest": erasure.data_map.digest},
            now=erasure.run.clock.now(),
            session=session,
        )
        collections = len({step["collection"] for step in plan})
        details: dict[str, Detail] = {
            "documents": total,
            "collections": collections,
            "map_digest": erasure.data_map.digest,
            "dry_run": dry_run,
        }
        return Outcome(
            entries=(erasure.entry("erasure.planned", details),),
            checkpoint=erasure.checkpoint(planned=total),
            result={"documents": total, "dry_run": True} if dry_run else None,
        )

    erasure.commit(effect)


def _start(erasure: Erasure) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        erasure.requests.move(erasure.request_id, Stage.EXECUTING, {}, now=now, session=session)
        return Outcome(
            entries=(erasure.entry("erasure.started", {"attempt": erasure.run.job.attempts}),),
            checkpoint=erasure.checkpoint(),
        )

    erasure.commit(effect)


def _reject(erasure: Erasure, reason: str) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        erasure.requests.move(erasure.request_id, Stage.REJECTED, {"reason": reason}, now=now, session=session)
        return Outcome(checkpoint=erasure.checkpoint())

    erasure.commit(effect)


def _complete(erasure: Erasure, steps: tuple[Step, ...]) -> None:
    total = sum(count for verbs in erasure.affected.values() for count in verbs.values())
    kept = [
        _kept(step, count)
        for step in steps
        if step.kept and (count := erasure.affected.get(step.collection, {}).get(step.verb, 0))
    ]
    stage = Stage.COMPLETED_WITH_RETENTION if kept else Stage.COMPLETED
    surfaces, request = find_surfaces(erasure), erasure.requests.find(erasure.request_id) or {}
    verified = erasure.entry("erasure.verified", {"residual": {}})

    def effect(session: Session) -> Outcome:
        now = max(erasure.run.clock.now(), verified.created_at + TICK)  # readers sort by time
        changes = {"affected": erasure.affected, "kept": kept, "completed_at": now, "residual": {}}
        changes["notices"] = open_notices(erasure.data_map.recipients)
        statement, digest = state_outcome(erasure, {**request, **changes, "state": stage.value}, surfaces)
        erasure.on_complete(session)
        erasure.requests.move(
            erasure.request_id, stage, {**changes, "certificate": statement}, now=now, session=session
        )
        details: dict[str, Detail] = {
            "documents": total,
            "kept": {str(item["collection"]): int(item["documents"]) for item in kept},
            DETAIL: digest,
        }
        return Outcome(
            entries=(verified, replace(erasure.entry("erasure.completed", details), created_at=now)),
            checkpoint=erasure.checkpoint(),
            result={"state": stage.value, "documents": total, "affected": erasure.affected},
        )

    erasure.commit(effect)


def _kept(step: Step, count: int) -> dict[str, Any]:
    if step.kept is None:
        raise ValueError(f"nothing of {step.collection} is kept")
    return {"collection": step.collection, "documents": count, **step.kept.model_dump(mode="json")}
