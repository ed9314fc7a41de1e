"""Rehearse pending scripts on a copy: up, verify, down, compare, and up again; then the copy is dropped.

A process that is killed leaves the copy behind. The next rehearsal drops it, and so does ``sweep``, which the worker
calls with its retention job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from compliance.audit.entry import Cause, Entry
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import ComplianceError, InvalidPayload, LeaseLost, LockHeld, StoreUnavailable
from compliance.jobs.job import RequestId
from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.engine import unsaid
from migrations.ledger import lease, owner
from migrations.past import Mark
from migrations.promotion import ANYTHING
from migrations.rehearsal.clone import Copied, clone_of, copy, drop
from migrations.rehearsal.fingerprint import Fingerprint, differences, fingerprints
from migrations.revision import Revision
from migrations.runner import Runner
from migrations.sketch import PlannedStep
from migrations.wish import ALL, Wish

LEASE_ID, WORK = RequestId("rehearsal"), "a rehearsal is made"
GIVES_UP = (LeaseLost, StoreUnavailable)  # they say nothing of the scripts


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one step took.

    Attributes:
        seconds: On the copy.
        whole_seconds: On the original, if the time grows with the documents of its collection.
    """

    what: str
    seconds: float
    whole_seconds: float


@dataclass(slots=True, kw_only=True)
class RehearsedScript:
    """What became of one script.

    Attributes:
        irreversible: Why there is no way back, if so.
        differs_in: What its way back does not restore, by collection.
        is_undone: Whether its way back was tried.
    """

    name: str
    irreversible: str | None
    timings: tuple[Timing, ...]
    differs_in: Mapping[str, str] = field(default_factory=dict)
    is_undone: bool = False


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a rehearsal showed.

    Attributes:
        copied: How much of each collection was copied.
        problems: What was not as the scripts say once they were applied.
        stopped: Which part failed, and why; empty where none did.
    """

    copied: Mapping[str, Copied]
    scripts: list[RehearsedScript] = field(default_factory=list)
    problems: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def differs_in(self) -> tuple[str, ...]:
        """The collections that a way back does not restore."""
        return tuple(sorted({name for script in self.scripts for name in script.differs_in}))

    @property
    def is_good(self) -> bool:
        """Whether everything went well, and what can be undone was restored."""
        return not (self.problems or self.stopped or self.differs_in)


def rehearse(runner: Runner, *, documents: int, wish: Wish = ALL, in_production: bool = False) -> Outcome:
    """Try what is pending on a copy with at most so many *documents* of each collection.

    Raises:
        InvalidPayload: In production, unless *in_production*: people's data is copied.
        LockHeld: When somebody else rehearses.
    """
    if runner.admission.is_strict and not in_production:
        raise InvalidPayload(
            "a rehearsal copies documents of people into another database of these servers; say --in-production if "
            "that is what you want here, or rehearse in staging"
        )
    if documents < 1:
        raise InvalidPayload("a rehearsal needs at least one document of each collection")
    clone = clone_of(runner.databases)
    with lease(
        runner.databases,
        owner=owner(),
        clock=runner.clock,
        length=runner.lease,
        should_stop=runner.should_stop,
        lease_id=LEASE_ID,
        work=WORK,
    ):
        drop(clone)
        try:
            outcome = _rehearse(runner, clone, documents, wish)
        finally:
            drop(clone)
    _record(runner, outcome, documents)
    return outcome


def sweep(databases: Databases, *, clock: Clock, length: timedelta) -> bool:
    """Drop a copy that a rehearsal left behind; return whether there was one, and nobody is at work on it."""
    clone = clone_of(databases)
    with driver_errors():
        if not any(database.list_collection_names() for database in (clone.app, clone.audit, clone.compliance)):
            return False
    try:
        with lease(databases, owner=owner(), clock=clock, length=length, lease_id=LEASE_ID, work=WORK):
            drop(clone)
    except LockHeld:
        return False
    return True


def _rehearse(runner: Runner, clone: Databases, documents: int, wish: Wish) -> Outcome:
    pending = runner.pending(wish)
    runner.report(f"copy at most {documents} documents of each collection")
    outcome = Outcome(copied=copy(runner.databases, clone, documents=documents))
    here = replace(
        runner,
        databases=clone,
        is_rehearsal=True,
        report=unsaid,
        follow=None,
        admission=replace(runner.admission, is_strict=False),
        gate=ANYTHING,
    )
    states = [fingerprints(clone.app)]
    try:
        for revision in pending:
            runner.report(f"up: {revision.name}")
            outcome.scripts.append(_up(here, revision, wish, outcome.copied))
            states.append(fingerprints(clone.app))
        outcome.problems = tuple(map(str, here.verify()))
    except GIVES_UP:
        raise
    except ComplianceError as error:
        outcome.stopped = f"up: {error}"
        if not _undo_half(here, pending[len(outcome.scripts) :]):
            return outcome
    runner.report("down and up again")
    _down_and_up(here, pending, wish, outcome=outcome, states=states)
    return outcome


def _up(here: Runner, revision: Revision, wish: Wish, copied: Mapping[str, Copied]) -> RehearsedScript:
    only = Wish(only=revision.name, allow_late=wish.allow_late)
    planned = here.preview(only)
    here.up(wish=only)
    steps = [step for script in planned.scripts for step in script.steps]
    return RehearsedScript(
        name=revision.name, irreversible=revision.irreversible, timings=_timings(here, revision, steps, copied)
    )


def _undo_half(here: Runner, left: tuple[Revision, ...]) -> bool:
    """Undo the script that failed, as far as it was applied; return whether those before it can be undone then."""
    if not left:
        return True
    if left[0].irreversible:
        return False
    try:
        here.undo(left[0])
    except GIVES_UP:
        raise
    except ComplianceError:
        return False
    return True


def _down_and_up(
    here: Runner,
    pending: tuple[Revision, ...],
    wish: Wish,
    *,
    outcome: Outcome,
    states: list[dict[str, Fingerprint]],
) -> None:
    """Undo what was applied, the last one first, up to one that is irreversible; then apply it again."""
    undone: list[Revision] = []
    applied = list(zip(pending, outcome.scripts, states, strict=False))
    try:
        for revision, script, before in reversed(applied):
            if revision.irreversible:
                break
            here.undo(revision)
            script.is_undone = True
            undone.append(revision)
            known = {name for one in outcome.scripts for name in one.differs_in}
            found = differences(before, fingerprints(here.databases.app))
            script.differs_in = {name: what for name, what in found.items() if name not in known}
        for revision in reversed(undone):
            here.up(wish=Wish(only=revision.name, allow_late=wish.allow_late))
    except GIVES_UP:
        raise
    except ComplianceError as error:
        outcome.stopped = outcome.stopped or f"down and up again: {error}"


def _timings(
    here: Runner, revision: Revision, planned: list[PlannedStep], copied: Mapping[str, Copied]
) -> tuple[Timing, ...]:
    """Return how long each step took, by the journal of the copy."""
    estimates = {step.number: step.estimate for step in planned}
    events = (event for event in here.history.events() if event["revision"] == revision.name)
    begun = [event["at"] for event in events if event["event"] == Mark.STARTED][-1:]
    if not begun:  # it was applied before
        return ()
    at: datetime = begun[0]
    found = []
    for step in sorted(here.history.steps(revision.name), key=lambda step: step["_id"]["number"]):
        seconds = max(timedelta(), step["at"] - at).total_seconds()
        estimate = estimates.get(step["_id"]["number"])
        ratio = copied[estimate.collection].ratio if estimate and estimate.collection in copied else 1.0
        found.append(Timing(what=step["what"], seconds=seconds, whole_seconds=seconds * ratio))
        at = step["at"]
    return tuple(found)


def _record(runner: Runner, outcome: Outcome, documents: int) -> None:
    """Tell the real audit log that people's data was copied, by whom, and what came of it."""
    details: dict[str, Any] = {
        "documents": documents,
        "copied": sum(one.documents for one in outcome.copied.values()),
        "scripts": [script.name for script in outcome.scripts],
        "result": "good" if outcome.is_good else "stopped" if outcome.stopped else "not as it should be",
        "differs_in": list(outcome.differs_in),
    }
    entry = Entry(
        event=str(ObjectId()),
        entity_type="migration",
        entity_id="rehearsal",
        action="migration.rehearsed",
        created_at=runner.clock.now(),
        performed_by=runner.actor,
        details=details,
    )
    log = AuditLog(runner.databases, Cause(channel="migrations"))

    def effect(session: Session) -> None:
        log.append(entry, session=session)

    runner.databases.transact(effect)


def describe(outcome: Outcome) -> Document:
    """Return *outcome* for machines."""
    return {
        "is_good": outcome.is_good,
        "stopped": outcome.stopped or None,
        "problems": list(outcome.problems),
        "differs_in": list(outcome.differs_in),
        "copied": {name: {"documents": one.documents, "of": one.of} for name, one in outcome.copied.items()},
        "scripts": [
            {
                "name": script.name,
                "irreversible": script.irreversible,
                "is_undone": script.is_undone,
                "differs_in": dict(script.differs_in),
                "steps": [
                    {
                        "what": timing.what,
                        "seconds": round(timing.seconds, 3),
                        "whole_seconds": round(timing.whole_seconds, 3),
                    }
                    for timing in script.timings
                ],
            }
            for script in outcome.scripts
        ],
    }
