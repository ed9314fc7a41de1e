"""Carry revisions out: the lease, each revision with its events in the history and in the audit log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from bson import ObjectId

from compliance.audit.entry import Entry
from compliance.clock import Clock
from compliance.datamap.pseudonym import Pseudonyms
from compliance.errors import AppliedStepEdited
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Session, driver_errors
from compliance.roles import Grants
from migrations.admission import EVERYTHING, Admission, allowance_entries
from migrations.context import Context, Report
from migrations.hands import ACCEPTING, Compared
from migrations.journal import Journal, is_accepted, open_journal, passage_of
from migrations.ledger import History, lease, left_behind, owner
from migrations.online import own
from migrations.online.follow import Change, Follower, following
from migrations.ops.aside import Because, settle_all
from migrations.ops.estimate import read_oplog
from migrations.ops.foundation import is_complete
from migrations.ops.rebuild import recover
from migrations.overlay import Overlay
from migrations.past import Mark
from migrations.plan import (
    Direction,
    Plan,
    Scripts,
)
from migrations.preview import PlannedScript, Preview
from migrations.progress import Follow, Progress
from migrations.promotion import ANYTHING, Gate
from migrations.revision import Revision
from migrations.script_errors import script_errors
from migrations.sketch import Sketch
from migrations.throttle.throttle import Throttle

BEGINS = {Direction.UP: "started", Direction.DOWN: "reverting"}
ENDS = {Direction.UP: "applied", Direction.DOWN: "reverted"}


def unsaid(line: str, /) -> None:
    """Take a line for people and show it to nobody."""
    del line


def both(report: Report, sketch: Sketch) -> Report:
    """Return what tells people of a script, and keeps it beside the steps of a dry run."""

    def tell(line: str, /) -> None:
        report(f"  {line}")
        sketch.note(line)

    return tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Carries out the revisions of one application database, as a plan says.

    Attributes:
        actor: Who asks, for the audit log.
        report: Where lines for people go.
        should_stop: Asked before every step; a run that stops goes on where it stood at the next ``up``.
        admission: Which scripts may go up.
        gate: Which scripts staging must have vouched for.
        is_rehearsal: Whether these databases are a copy, for which no roles are made.
        follow: Told which script runs and how far it is; None where lines for people say it.
        pseudonyms: How erased people are named, where the data map has a personal root key, to recognise them.
        on_emergency: Told the names of scripts that may run here though staging has not vouched for them.
    """

    databases: Databases
    revisions: Sequence[Revision]
    grants: Grants
    clock: Clock
    actor: str
    report: Report
    lease: timedelta = timedelta(seconds=30)
    batch_docs: int = 500
    most_docs: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    admission: Admission = EVERYTHING
    gate: Gate = ANYTHING
    is_rehearsal: bool = False
    follow: Follow | None = None
    on_emergency: Callable[[Sequence[str]], None] = lambda _: None
    pseudonyms: Pseudonyms | None = None

    @property
    def history(self) -> History:
        """What was applied."""
        return History(self.databases)

    def scripts(self) -> Scripts:
        """Return what there is to run, and what became of it."""
        past = self.history.past()
        return Scripts(folder=self.revisions, past=past, gone=self.history.gone(past, self.revisions))

    def _hold(self) -> AbstractContextManager[Run]:
        return lease(self.databases, owner=owner(), clock=self.clock, length=self.lease, should_stop=self.should_stop)

    @contextmanager
    def _lease(self) -> Iterator[Run]:
        with self._hold() as run:
            recover(self._hands("recovery", run))  # whoever died may have left writes refused
            yield run

    def _incomplete(self, plan: Plan) -> tuple[Revision, ...]:
        """Return the foundation where it is applied and not as it should be, else nothing."""
        applied = tuple(found for found in self.revisions if found.number == 0 and found not in plan.revisions)
        return () if not applied or is_complete(self.databases) else applied

    def _complete(self, foundation: tuple[Revision, ...], run: Run) -> tuple[Revision, ...]:
        """Apply the *foundation* again: no event of the history, and the checkpoint of a script that died stays."""
        for revision in foundation:
            self.report(f"{revision.name}: {revision.summary}")
            revision.up(replace(self._context(Direction.UP, revision, run, drop_data=False), script=""))
        return foundation

    def _sketch(self, plan: Plan, told: Report, *, drop_data: bool = False) -> Preview:
        overlay = Overlay()
        sketched = []
        for revision in plan.revisions:
            told(f"{revision.name}: {revision.summary}")
            sketch = Sketch(overlay)
            ctx = self._context(plan.direction, revision, None, drop_data=drop_data)
            ctx.sketch, ctx.report = sketch, both(told, sketch)
            ctx.left = left_behind(self.databases)
            ctx.journal = self._journal(revision, BEGINS[plan.direction], ObjectId())
            _change(plan.direction, revision, ctx)
            sketched.append(PlannedScript(revision=revision, steps=tuple(sketch.steps)))
        return Preview(direction=plan.direction, scripts=tuple(sketched), oplog=read_oplog(self.databases))

    def _run(self, plan: Plan, run: Run, *, drop_data: bool = False) -> tuple[Revision, ...]:
        is_up = plan.direction is Direction.UP
        unread_told = set[str]()
        for number, revision in enumerate(plan.revisions, 1):
            begin = BEGINS[plan.direction]
            end = Mark.DUAL if is_up and revision.is_online else ENDS[plan.direction]
            self.report(f"{revision.name}: {revision.summary}")
            ctx = self._context(plan.direction, revision, run, drop_data=drop_data)
            if ctx.throttle is not None:
                ctx.throttle.unread_told = unread_told
            ctx.follow = self._begin(f"{revision.name} ({number} of {len(plan.revisions)})")
            event_id = ObjectId()
            ctx.journal = self._journal(revision, begin, event_id)
            _compare(plan.direction, revision, ctx)
            passage = ctx.journal.passage
            settles = Because.BEGUN_AGAIN if is_up and passage == event_id else None
            self._record(run, revision, begin, event_id=event_id, settles=settles, passage=passage)
            with self.following(revision):
                _change(plan.direction, revision, ctx)
            settles = None if is_up else Because.REVERTED
            self._record(run, revision, end, checkpoint={}, settles=settles, passage=passage)
            if end == Mark.REVERTED and revision.is_online:
                own.forget(self.databases, revision.name)
        return plan.revisions

    def _begin(self, what: str) -> Follow | None:
        """Say that a script begins; return who is told how far its steps are."""
        follow = self.follow
        if follow is None:
            return None
        follow(Progress(what=what))
        return lambda progress: follow(replace(progress, what=f"{what}: {progress.what}"))

    def following(self, revision: Revision) -> AbstractContextManager[None]:
        """Keep an online change in step for the block, unless the process that is there for it does."""
        change = revision.load().change
        if change is None:
            return nullcontext()
        return following(
            Follower(
                databases=self.databases,
                change=Change(revision=revision.name, shape=change),
                clock=self.clock,
                actor=self.actor,
                length=self.lease,
                should_stop=self.should_stop,
                told=self.report,
            )
        )

    def _journal(self, revision: Revision, begin: str, event_id: ObjectId) -> Journal:
        events = [event for event in self.history.events() if event["revision"] == revision.name]
        passage = passage_of(events, begin)
        return open_journal(
            self.databases,
            revision=revision.name,
            passage=passage or event_id,
            is_accepted=is_accepted(events, passage, revision.checksum),
        )

    def _hands(self, name: str, run: Run | None) -> Context:
        return Context(
            databases=self.databases,
            revision=name,
            actor=self.actor,
            grants=self.grants,
            report=self.report,
            run=run,
            pseudonyms=self.pseudonyms,
            batch_docs=self.batch_docs,
        )

    def _context(self, direction: Direction, revision: Revision, run: Run | None, *, drop_data: bool) -> Context:
        return Context(
            databases=self.databases,
            revision=revision.name,
            script=f"{direction} {revision.name}",
            actor=self.actor,
            grants=self.grants,
            report=lambda line: self.report(f"  {line}"),
            run=run,
            pseudonyms=self.pseudonyms,
            batch_docs=self.batch_docs,
            most_docs=self.most_docs,
            throttle=None if run is None else Throttle(databases=self.databases, clock=self.clock),
            drop_data=drop_data,
            asks_nobody=self.is_rehearsal,
        )

    def _record(
        self,
        run: Run,
        revision: Revision,
        event: str,
        *,
        event_id: ObjectId | None = None,
        checkpoint: Mapping[str, Any] | None = None,
        settles: Because | None = None,
        passage: ObjectId | None = None,
    ) -> None:
        """Record *event*; where it *settles* that, nobody needs what was set aside in other passages than *passage*."""
        now = run.clock.now()
        recorded = {"_id": event_id or ObjectId(), "fence": run.job.fence, "revision": revision.name, "event": event}
        recorded |= {"checksum": revision.checksum, "by": self.actor, "at": now}
        entry = Entry(
            event=f"{revision.name}#{run.job.fence}",
            entity_type="migration",
            entity_id=revision.name,
            action=f"migration.{event}",
            created_at=now,
            performed_by=self.actor,
            details={"checksum": revision.checksum},
        )

        more = allowance_entries(revision, like=entry) if event == Mark.STARTED else ()

        def effect(session: Session) -> Outcome:
            kept = {"source": self.history.keep(revision, session=session)} if event == Mark.STARTED else {}
            self.history.add({**recorded, **kept}, session=session)
            if settles is not None:
                settle_all(self.databases, revision.name, settles, at=now, session=session, but=passage)
            return Outcome(entries=(entry, *more), checkpoint=checkpoint)

        run.commit(effect)


def _compare(direction: Direction, revision: Revision, ctx: Context) -> None:
    """Return if what was carried out of *revision* before is as it was: nothing of an edited one is recorded.

    Raises:
        AppliedStepEdited: When a step is not, or what it uses.
    """
    if ctx.begun == 0 or revision.is_online:  # the steps of an online change are what its Shape says
        return
    ctx = replace(ctx, compares=True, report=unsaid)
    try:
        _change(direction, revision, ctx)
    except Compared:
        return
    if ctx.journal is None or not ctx.journal.is_accepted:
        raise AppliedStepEdited(
            f"{revision.name}: it has fewer steps than were carried out before the interruption; restore it, or undo "
            f"the script first; or, where {ACCEPTING}"
        )


def _change(direction: Direction, revision: Revision, ctx: Context) -> None:
    with driver_errors(), script_errors(revision.name):
        if direction is Direction.UP:
            revision.up(ctx)
        elif revision.down is not None:
            revision.down(ctx)
