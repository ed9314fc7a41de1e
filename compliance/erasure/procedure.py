"""The procedure of an erasure as a durable job.

received → accepted → planned (dry run: done) → grace, where there is one → executing: every step in batches, the
person's own document last → verifying: look again → completed. What the second look finds, or an error ends, is
replanned when the job is tried again. Every move is in one transaction with its entry.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from compliance.audit.entry import Detail, Entry
from compliance.datamap.kept import keep_map
from compliance.datamap.rule import Keep
from compliance.erasure.certificate import DETAIL
from compliance.erasure.certify import find_surfaces, state_outcome
from compliance.erasure.execute import carry_out
from compliance.erasure.feasible import refuse_impossible_actions, refuse_lookalikes
from compliance.erasure.holds import Holds
from compliance.erasure.notices import open_notices
from compliance.erasure.plan import Step, compile_steps
from compliance.erasure.progress import Erasure
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import collection_names, left_out, normalise
from compliance.erasure.verify import look_again
from compliance.errors import LegalHoldActive, NotDue, PlanOutdated, UnknownSubject
from compliance.jobs.run import Outcome
from compliance.mongo import Document, Session
from compliance.period import Period

NO_GRACE = Period()
PLAN_ACTIONS = {Stage.PLANNED: "erasure.planned", Stage.REPLANNED: "erasure.replanned"}
TICK = timedelta(milliseconds=1)  # of the times that MongoDB stores
REPLANNED = (Stage.RESIDUAL_FOUND, Stage.FAILED, Stage.REPLANNED)  # where a new attempt begins with a new plan


def erase(erasure: Erasure, *, dry_run: bool, grace: Period) -> None:
    """Erase one person, or with *dry_run* record the plan only.

    Args:
        erasure: What is known of the person, and the job.
        dry_run: Whether to end with the plan.
        grace: How long to wait after the plan, so that the person can think again.

    Raises:
        UnknownSubject: When there is no such person and never was an erasure of one.
        LegalHoldActive: When a hold forbids it.
        NotDue: While the time of grace lasts.
        PlanOutdated: When the data map changed since the plan.
        ErasureIncomplete: When an identifier is found again; the request is parked, never completed.
    """
    if erasure.requests.find(erasure.request_id) is None:
        _receive(erasure, dry_run=dry_run)
    erasure.recall()
    try:
        _erase_accepted(erasure, dry_run=dry_run, grace=grace)
    except LegalHoldActive as error:
        _reject(erasure, error)
        raise


def _erase_accepted(erasure: Erasure, *, dry_run: bool, grace: Period) -> None:
    steps = compile_steps(erasure.data_map)
    request = erasure.requests.get(erasure.request_id)
    stage = Stage(request["state"])
    if stage is Stage.ACCEPTED:
        _plan(erasure, steps, dry_run=dry_run, grace=grace)
        if dry_run:
            return
        request = erasure.requests.get(erasure.request_id)
    elif stage in REPLANNED or request.get("replan"):
        _plan(erasure, steps, dry_run=False, stage=Stage.REPLANNED)
    else:
        _refuse_outdated(erasure, request)
    if Stage(request["state"]) is Stage.GRACE:
        _wait(erasure, request["grace_until"])
    _start(erasure)
    for number, step in enumerate(steps):
        if step.is_root:
            look_again(erasure, skip=(step.collection,))
        carry_out(erasure, step, number=number, total=len(steps))
    _verify(erasure)
    look_again(erasure)
    _complete(erasure, steps)


def _wait(erasure: Erasure, until: datetime) -> None:
    if erasure.run.clock.now() < until:
        raise NotDue(
            f"the time of grace lasts until {until:%Y-%m-%d %H:%M} UTC; until then "
            f"`compliance erasure withdraw {erasure.request_id}` takes the request back and nothing was touched",
            until,
        )


def _refuse_outdated(erasure: Erasure, request: Document) -> None:
    if request["map_digest"] != erasure.data_map.digest:
        raise PlanOutdated(
            "the data map changed since this erasure was planned, so the plan says something else than what would be "
            f"done; `compliance erasure replan {erasure.request_id}` plans anew and goes on"
        )


def _receive(erasure: Erasure, *, dry_run: bool) -> None:
    """Record the request, and accept or reject it, in one transaction.

    Raises:
        LegalHoldActive: When it was rejected, behind the commit.
    """
    earlier = _earlier(erasure)
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
            normalised_id=_normalised_id(erasure),
            earlier=earlier,
        )
        try:
            Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        except LegalHoldActive as error:
            refusals.append(error)
            answer = _to_rejected(erasure, error, now=now + TICK, session=session)
        else:
            whose = {"accepted_at": now} | ({} if erasure.tenant is None else {"tenant": erasure.tenant})
            erasure.requests.move(erasure.request_id, Stage.ACCEPTED, whose, now=now, session=session)
            answer = _at(erasure.entry("erasure.accepted", {}), now + TICK)
        asked = _at(erasure.entry("erasure.requested", {"dry_run": dry_run}), now)
        return Outcome(entries=(asked, answer), checkpoint=erasure.checkpoint())

    erasure.commit(effect)
    if refusals:
        raise refusals[0]


def _earlier(erasure: Erasure) -> str | None:
    """Return the request that erased the person before, if one did."""
    subject, before = erasure.data_map.subject, erasure.requests.completed_for(*erasure.names)
    if before is None and not erasure.is_present:
        raise UnknownSubject(
            f"no document of {subject.collection} has this {subject.key}; check the id and the database"
        )
    return None if before is None else str(before["_id"])


def _at(entry: Entry, moment: datetime) -> Entry:
    return replace(entry, created_at=moment)  # readers sort by time


def _normalised_id(erasure: Erasure) -> str | None:
    value = erasure.identity.values.get(erasure.data_map.subject.key)
    return erasure.pseudonyms.make(normalise(value)) if erasure.pseudonyms and value is not None else None


def _plan(
    erasure: Erasure,
    steps: tuple[Step, ...],
    *,
    dry_run: bool,
    grace: Period = NO_GRACE,
    stage: Stage = Stage.PLANNED,
) -> None:
    """Count what each step would touch, and record that; then the time of grace begins, if there is one."""
    refuse_impossible_actions(erasure)
    refuse_lookalikes(erasure)
    counts = [(step, erasure.locator.count(step, after=steps[:number])) for number, step in enumerate(steps)]
    plan = [{"collection": step.collection, "action": step.verb, "documents": count} for step, count in counts if count]
    kept = [_kept(step, count) for step, count in counts if count and step.kept]
    total = sum(count for step, count in counts if not isinstance(step.action, Keep))
    keep_map(erasure.databases, erasure.data_map, now=erasure.run.clock.now())

    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        digest = erasure.data_map.digest
        changes = {"plan": plan, "kept": kept, "map_digest": digest, "replan": False}
        erasure.requests.move(erasure.request_id, stage, changes, now=now, session=session)
        details: dict[str, Detail] = {
            "documents": total,
            "collections": len({step["collection"] for step in plan}),
            "map_digest": digest,
            "dry_run": dry_run,
        }
        entries = [_at(erasure.entry(PLAN_ACTIONS[stage], details), now)]
        if grace != NO_GRACE and not dry_run:
            entries.append(_to_grace(erasure, grace, now=now + TICK, session=session))
        return Outcome(
            entries=tuple(entries),
            checkpoint=erasure.checkpoint(planned=total),
            result={"documents": total, "dry_run": True} if dry_run else None,
        )

    erasure.commit(effect)


def _to_grace(erasure: Erasure, grace: Period, *, now: datetime, session: Session) -> Entry:
    until = grace.after(now)
    erasure.requests.move(erasure.request_id, Stage.GRACE, {"grace_until": until}, now=now, session=session)
    return _at(erasure.entry("erasure.grace", {"until": until.isoformat()}), now)


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


def _reject(erasure: Erasure, error: LegalHoldActive) -> None:
    if Stage(erasure.requests.get(erasure.request_id)["state"]) is Stage.REJECTED:
        return

    def effect(session: Session) -> Outcome:
        entry = _to_rejected(erasure, error, now=erasure.run.clock.now(), session=session)
        return Outcome(entries=(entry,), checkpoint=erasure.checkpoint())

    erasure.commit(effect)


def _to_rejected(erasure: Erasure, error: LegalHoldActive, *, now: datetime, session: Session) -> Entry:
    erasure.requests.move(erasure.request_id, Stage.REJECTED, {"reason": str(error)}, now=now, session=session)
    details: dict[str, Detail] = {"code": type(error).__name__}
    return _at(erasure.entry("erasure.rejected", details, outcome="denied"), now)


def _verify(erasure: Erasure) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        erasure.requests.move(erasure.request_id, Stage.VERIFYING, {}, now=now, session=session)
        return Outcome(entries=(erasure.entry("erasure.verifying", {}),), checkpoint=erasure.checkpoint())

    erasure.commit(effect)


def _complete(erasure: Erasure, steps: tuple[Step, ...]) -> None:
    total = sum(count for verbs in erasure.affected.values() for count in verbs.values())
    kept = [_kept(step, count) for step in steps if step.kept and (count := _count_kept(erasure, step))]
    stage = Stage.COMPLETED_WITH_RETENTION if kept else Stage.COMPLETED
    surfaces, request = find_surfaces(erasure), erasure.requests.get(erasure.request_id)
    names, why = collection_names(erasure.databases.app), left_out(erasure.databases.app)
    details_seen: dict[str, Detail] = {"residual": {}, "collections": len(names), "left_out": sorted(why)}
    verified = erasure.entry("erasure.verified", details_seen)
    more = {name: request[name] for name in ("earlier",) if name in request}

    def effect(session: Session) -> Outcome:
        now = max(erasure.run.clock.now(), verified.created_at + TICK)  # readers sort by time
        changes = {"affected": erasure.affected, "kept": kept, "completed_at": now, "residual": {}}
        changes["left_out"] = [{"collection": name, "why": reason} for name, reason in why.items()]
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
            entries=(verified, _at(erasure.entry("erasure.completed", details), now)),
            checkpoint=erasure.checkpoint(),
            result={"state": stage.value, "documents": total, "affected": erasure.affected, **more},
        )

    erasure.commit(effect)


def _count_kept(erasure: Erasure, step: Step) -> int:
    """Return how many documents stay: those that were changed, or where none was to be changed, those of the plan."""
    if not isinstance(step.action, Keep):
        return erasure.affected.get(step.collection, {}).get(step.verb, 0)
    request = erasure.requests.get(erasure.request_id)
    return sum(int(item["documents"]) for item in request.get("kept", ()) if item == _kept(step, item["documents"]))


def _kept(step: Step, count: int) -> dict[str, Any]:
    if step.kept is None:
        raise ValueError(f"nothing of {step.collection} is kept")
    return {"collection": step.collection, "documents": count, **step.kept.model_dump(mode="json")}
