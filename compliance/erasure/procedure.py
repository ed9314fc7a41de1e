"""The procedure of an erasure as a durable job.

received → accepted → planned (dry run: done) → grace, where there is one → executing: every step in batches, the
person's own document last → verifying: look again → completed. What the second look finds, or an error ends, is
replanned when the job is tried again. Every move is in one transaction with its entry.
"""

from dataclasses import replace
from datetime import datetime

from compliance.audit.entry import Detail, Entry
from compliance.datamap.kept import keep_map
from compliance.datamap.rule import Keep
from compliance.erasure.admission import receive, reject
from compliance.erasure.completion import complete, kept_of
from compliance.erasure.execute import carry_out
from compliance.erasure.feasible import refuse_impossible_actions, refuse_lookalikes
from compliance.erasure.holds import Holds
from compliance.erasure.plan import compile_steps
from compliance.erasure.progress import TICK, Erasure
from compliance.erasure.restraint import Restraint
from compliance.erasure.stage import Stage
from compliance.erasure.verify import look_again
from compliance.errors import LegalHoldActive, NotDue, PlanOutdated
from compliance.jobs.run import Outcome
from compliance.mongo import Document, Session
from compliance.period import Period

NO_GRACE = Period()
PLAN_ACTIONS = {Stage.PLANNED: "erasure.planned", Stage.REPLANNED: "erasure.replanned"}
REPLANNED = (Stage.RESIDUAL_FOUND, Stage.FAILED, Stage.REPLANNED)  # where a new attempt begins with a new plan


def erase(erasure: Erasure, *, dry_run: bool, grace: Period) -> None:
    """Erase one person, or with *dry_run* record the plan only.

    Args:
        erasure: What is known of the person, and the job.
        dry_run: Whether to end with the plan.
        grace: How long to wait after the plan, so that the person can think again.

    Raises:
        UnknownSubject: When there is no such person and never was an erasure of one.
        LegalHoldActive: When a hold on everything forbids it.
        HoldsChanged: When a hold on a part was placed or ended meanwhile; tried again with another plan.
        NotDue: While the time of grace lasts.
        PlanOutdated: When the data map changed since the plan.
        ErasureIncomplete: When an identifier is found again; the request is parked, never completed.
    """
    request = erasure.requests.find(erasure.request_id)
    if request is None:
        receive(erasure, dry_run=dry_run)
    elif Stage(request["state"]) is Stage.REJECTED:  # whoever recorded that vanished before the job was ended
        raise LegalHoldActive(request["reason"])
    erasure.recall()
    try:
        _erase_accepted(erasure, dry_run=dry_run, grace=grace)
    except LegalHoldActive as error:
        reject(erasure, error)
        raise


def _erase_accepted(erasure: Erasure, *, dry_run: bool, grace: Period) -> None:
    restraint = Restraint.of(erasure, compile_steps(erasure.data_map))
    request = erasure.requests.get(erasure.request_id)
    if Stage(request["state"]) is Stage.ACCEPTED:
        _plan(erasure, restraint, dry_run=dry_run, grace=grace)
        if dry_run:
            return
        request = erasure.requests.get(erasure.request_id)
    if Stage(request["state"]) is Stage.GRACE:
        _wait(erasure, request["grace_until"])
    if _needs_another_plan(erasure, request, restraint):
        _plan(erasure, restraint, dry_run=False, stage=Stage.REPLANNED)
    erasure.holds = restraint.known
    steps = restraint.allowed
    _start(erasure)
    for number, step in enumerate(steps):
        if step.is_root:
            look_again(erasure, skip=(step.collection,))
        carry_out(erasure, step, number=number, total=len(steps))
    _verify(erasure)
    look_again(erasure, skip=restraint.collections)
    complete(erasure, steps, restraint)


def _needs_another_plan(erasure: Erasure, request: Document, restraint: Restraint) -> bool:
    """Whether to plan anew before going on.

    Raises:
        PlanOutdated: When the data map changed, and nobody asked for another plan.
    """
    if Stage(request["state"]) in REPLANNED or request.get("replan"):
        return True
    _refuse_outdated(erasure, request)
    return frozenset(request.get("holds", ())) != restraint.known


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


def _plan(
    erasure: Erasure,
    restraint: Restraint,
    *,
    dry_run: bool,
    grace: Period = NO_GRACE,
    stage: Stage = Stage.PLANNED,
) -> None:
    """Count what each step would touch, and record that; then the time of grace begins, if there is one."""
    refuse_impossible_actions(erasure)
    refuse_lookalikes(erasure)
    steps = restraint.allowed
    counts = [(step, erasure.locator.count(step, after=steps[:number])) for number, step in enumerate(steps)]
    plan = [{"collection": step.collection, "action": step.verb, "documents": count} for step, count in counts if count]
    kept = [kept_of(step, count) for step, count in counts if count and step.kept] + restraint.kept(erasure)
    total = sum(count for step, count in counts if not isinstance(step.action, Keep))
    keep_map(erasure.databases, erasure.data_map, now=erasure.run.clock.now())

    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        digest = erasure.data_map.digest
        changes = {"plan": plan, "kept": kept, "map_digest": digest, "replan": False, **restraint.stored}
        erasure.requests.move(erasure.request_id, stage, changes, now=now, session=session)
        details: dict[str, Detail] = {
            "documents": total,
            "collections": len({step["collection"] for step in plan}),
            "map_digest": digest,
            "dry_run": dry_run,
        }
        if restraint.holds:
            details["cases"] = sorted({hold.case_id for hold in restraint.holds})
        entries = [replace(erasure.entry(PLAN_ACTIONS[stage], details), created_at=now)]
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
    return replace(erasure.entry("erasure.grace", {"until": until.isoformat()}), created_at=now)


def _start(erasure: Erasure) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        Holds(erasure.databases).check(*erasure.names, now=now, known=erasure.holds, session=session)
        erasure.requests.move(erasure.request_id, Stage.EXECUTING, {}, now=now, session=session)
        return Outcome(
            entries=(erasure.entry("erasure.started", {"attempt": erasure.run.job.attempts}),),
            checkpoint=erasure.checkpoint(),
        )

    erasure.commit(effect)


def _verify(erasure: Erasure) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        erasure.requests.move(erasure.request_id, Stage.VERIFYING, {}, now=now, session=session)
        return Outcome(entries=(erasure.entry("erasure.verifying", {}),), checkpoint=erasure.checkpoint())

    erasure.commit(effect)
