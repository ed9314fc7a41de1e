"""Answer a request: nothing is found any more, beside what is kept and what legal holds leave out."""

from collections import Counter
from dataclasses import replace

from compliance.audit.entry import Detail
from compliance.datamap.rule import Keep
from compliance.erasure.certificate import DETAIL
from compliance.erasure.certify import find_surfaces, state_outcome
from compliance.erasure.holds import Holds
from compliance.erasure.notices import open_notices
from compliance.erasure.plan import Step
from compliance.erasure.progress import TICK, Erasure, documents_changed
from compliance.erasure.restraint import Restraint
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import collection_names, unread
from compliance.jobs.run import Outcome
from compliance.mongo import Document, Session


def complete(erasure: Erasure, steps: tuple[Step, ...], restraint: Restraint) -> None:
    """Complete the request, with its certificate, its entries and the notices to recipients, in one transaction.

    Args:
        erasure: In which the second look found nothing.
        steps: Those that were carried out.
        restraint: What legal holds left out.

    Raises:
        HoldsChanged: When a hold was placed or ended since the plan.
    """
    holds, kept = Holds(erasure.databases), [*_kept(erasure, steps), *restraint.kept(erasure)]
    stage = Stage.COMPLETED_WITH_RETENTION if kept or restraint.holds else Stage.COMPLETED
    surfaces, request = find_surfaces(erasure), erasure.requests.get(erasure.request_id)
    names, why_not = collection_names(erasure.databases.app), unread(erasure.databases.app)
    seen: dict[str, Detail] = {"residual": {}, "collections": len(names), "unread": sorted(why_not)}
    verified = erasure.entry("erasure.verified", seen)
    total = documents_changed({"affected": erasure.affected})
    more: Document = {name: request[name] for name in ("earlier", "rest_of") if name in request}

    def effect(session: Session) -> Outcome:
        now = max(erasure.run.clock.now(), verified.created_at + TICK)  # readers sort by time
        holds.check(*erasure.names, now=now, known=restraint.known, session=session)
        holds.lean_on(restraint.holds, session=session)
        changes = {"affected": erasure.affected, "kept": kept, "completed_at": now, "residual": {}}
        changes["unread"] = [{"collection": name, "why": reason} for name, reason in why_not.items()]
        changes |= restraint.stored | {"notices": open_notices(erasure.data_map.recipients)}
        statement, digest = state_outcome(erasure, {**request, **changes, "state": stage.value}, surfaces)
        erasure.on_complete(session)
        erasure.requests.move(
            erasure.request_id, stage, {**changes, "certificate": statement}, now=now, session=session
        )
        details: dict[str, Detail] = {"documents": total, "kept": _counted(kept), DETAIL: digest}
        if restraint.holds:
            details["cases"] = sorted({hold.case_id for hold in restraint.holds})
        return Outcome(
            entries=(verified, replace(erasure.entry("erasure.completed", details), created_at=now)),
            checkpoint=erasure.checkpoint(),
            result={"state": stage.value, "documents": total, "affected": erasure.affected, **more},
        )

    erasure.commit(effect)


def kept_of(step: Step, count: int) -> Document:
    """Return what *step* keeps of so many documents.

    Raises:
        ValueError: When it keeps nothing.
    """
    if step.kept is None:
        raise ValueError(f"nothing of {step.collection} is kept")
    return {"collection": step.collection, "documents": count, **step.kept.model_dump(mode="json")}


def _kept(erasure: Erasure, steps: tuple[Step, ...]) -> list[Document]:
    return [kept_of(step, count) for step in steps if step.kept and (count := _count_kept(erasure, step))]


def _count_kept(erasure: Erasure, step: Step) -> int:
    """Return how many documents stay: those that were changed, or where none was to be changed, those of the plan."""
    if not isinstance(step.action, Keep):
        return erasure.affected.get(step.collection, {}).get(step.verb, 0)
    request = erasure.requests.get(erasure.request_id)
    return sum(int(item["documents"]) for item in request.get("kept", ()) if item == kept_of(step, item["documents"]))


def _counted(kept: list[Document]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for item in kept:
        counts[str(item["collection"])] += int(item["documents"])
    return dict(counts)
