"""What a person accepts against the rules: a script that comes late, one that was edited, one that is missing.

Nothing is taken out of the history: it is told of what was accepted, and so is the audit log.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum

from compliance.audit.entry import Entry
from compliance.errors import RejectedError, RevisionMissing
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document, Session
from migrations.ledger import History
from migrations.past import OPEN, REPAIRED, Mark, Trace
from migrations.plan import Plan, Scripts
from migrations.revision import Revision

SHORTEST_REASON = 10  # characters: "ok" is none
LONGEST_REASON = 500


def allow_late(plan: Plan, names: Collection[str], *, run: Run, actor: str) -> None:
    """Record which revisions of *plan* are among the *names* that may come late."""
    entries = tuple(
        Entry(
            event=f"{revision.name}#{run.job.fence}#late",
            entity_type="migration",
            entity_id=revision.name,
            action="migration.allowed_late",
            created_at=run.clock.now(),
            performed_by=actor,
            details={"checksum": revision.checksum},
        )
        for revision in plan.revisions
        if revision.name in names
    )
    if entries:
        run.commit(lambda _: Outcome(entries=entries))


def require_reason(reason: str) -> str:
    """Return *reason* without the spaces around it.

    Raises:
        RejectedError: When it says too little, or too much for an audit entry.
    """
    if not SHORTEST_REASON <= len(reason.strip()) <= LONGEST_REASON or "@" in reason:
        raise RejectedError(
            f"say in {SHORTEST_REASON} to {LONGEST_REASON} characters why, without names or "
            "addresses of persons: the audit log keeps the reason"
        )
    return reason.strip()


class Fault(StrEnum):
    """What of an applied script does not fit the folder."""

    NOTHING = "nothing"
    EDITED = "edited"
    MISSING = "missing"


def find_fault(scripts: Scripts, name: str) -> Fault:
    """Return what there is to accept of the script *name*, a full name.

    Raises:
        RevisionMissing: When it is half applied and not in the folder, or an online change that is open.
        RejectedError: When it was never run.
    """
    trace = scripts.past.traces.get(name)
    if trace is None or trace.mark is Mark.REVERTED:
        raise RejectedError(f"{name} is not applied: only what is applied can be accepted; write its full name")
    present = _find(scripts.folder, name)
    if trace.mark in OPEN or (trace.mark is not Mark.APPLIED and present is None):
        raise RevisionMissing(f"{name} is half applied; finish it with `up` or undo it with `down` first")
    if present is None:
        return Fault.NOTHING if trace.is_missed else Fault.MISSING
    return Fault.NOTHING if present.checksum == trace.checksum else Fault.EDITED


def accept(scripts: Scripts, name: str, *, reason: str, history: History, run: Run, actor: str) -> Fault:
    """Record that the script *name* counts as what the folder holds now; return what was accepted.

    Of a script that is half applied, or half undone, the steps that were carried out count as what they say now; one
    that was begun goes on where it stood.

    Args:
        scripts: Read under the lease of *run*.
        name: The full name.
        reason: As ``require_reason`` returns it.
        history: Where the event is added.
        run: The lease of migrations.
        actor: Who accepts.

    Raises:
        RejectedError, RevisionMissing: As ``find_fault``.
    """
    fault = find_fault(scripts, name)
    if fault is not Fault.NOTHING:
        present = _find(scripts.folder, name)
        _record(scripts.past.traces[name], present, reason=reason, history=history, run=run, actor=actor)
    return fault


def _find(revisions: Sequence[Revision], name: str) -> Revision | None:
    return next((revision for revision in revisions if revision.name == name), None)


def _record(trace: Trace, now: Revision | None, *, reason: str, history: History, run: Run, actor: str) -> None:
    at = run.clock.now()
    fault = (Fault.EDITED if now else Fault.MISSING).value
    sums = {"was": trace.checksum, "checksum": now.checksum if now else trace.checksum}
    entry = Entry(
        event=f"{trace.name}#{run.job.fence}#repaired",
        entity_type="migration",
        entity_id=trace.name,
        action="migration.repaired",
        created_at=at,
        performed_by=actor,
        details={"fault": fault, "reason": reason, **sums},
    )

    def effect(session: Session) -> Outcome:
        event: Document = {"revision": trace.name, "event": REPAIRED, "fault": fault, "reason": reason, **sums}
        if now:
            event["source"] = history.keep(now, session=session)
        history.add({**event, "fence": run.job.fence, "by": actor, "at": at}, session=session)
        return Outcome(entries=(entry,))

    run.commit(effect)
