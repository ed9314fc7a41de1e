"""Decide under the lease what runs, and run it: what ``compliance migrate`` and the job ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compliance.erasure.frozen import is_frozen
from compliance.errors import UnknownName
from compliance.jobs.run import Run
from compliance.mongo import driver_errors
from migrations.acceptance import Fault, accept, allow_late, find_fault, require_reason
from migrations.again import persist
from migrations.context import Context, Report
from migrations.engine import Engine, unsaid
from migrations.online import own, phases
from migrations.online.shape import Shape
from migrations.ops.aside import Because, count_unsettled
from migrations.ops.foundation import require_provisioned
from migrations.ops.rebuild import accept_exchange
from migrations.past import Mark
from migrations.plan import (
    Direction,
    Plan,
    find_one,
    find_open,
    plan_down,
    plan_only,
    plan_rollback,
    plan_up,
    refuse_waiting,
)
from migrations.preview import Preview
from migrations.promotion import allow_emergency
from migrations.revision import Revision
from migrations.script_errors import script_errors
from migrations.verification import Inspection, Problem, find_problems
from migrations.wish import ALL, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner(Engine):
    """Applies and reverts the revisions of one application database."""

    def pending(self, wish: Wish = ALL) -> tuple[Revision, ...]:
        """Return what ``up`` would run.

        Raises:
            DependencyRefused: When that is nothing, for what is left waits for an online change to be completed.
        """
        plan = self._plan_up(wish)
        found = (*self._incomplete(plan), *plan.revisions)
        if not found:
            refuse_waiting(plan)
        return found

    def unpromoted(self, wish: Wish = ALL) -> list[str]:
        """Return the names of what ``up`` would run, and staging has not vouched for."""
        return [revision.name for revision in self.gate.unpromoted(self.databases, self._plan_up(wish).revisions)]

    def up(self, target: str | None = None, *, wish: Wish = ALL, dry_run: bool = False) -> tuple[Revision, ...]:
        """Apply what is pending, up to and with *target*, or as *wish* says; return what was applied, or would be.

        The foundation is among them, too, when it was applied before and something of it is missing or differs: a
        collection or an index that a later release declares, or that somebody dropped.

        Raises:
            ConfigurationError: When audit log or roles are not as they should be, and this user may not mend them.
            GovernanceViolation: When the rules refuse a script in production; nothing ran.
            LockHeld: When somebody else runs migrations.
            MigrationError: When folder and history do not fit, or a step fails; earlier steps stay applied.
            PromotionRefused: When staging has not vouched for a script, and this is no emergency; nothing ran.
        """
        wish = replace(wish, target=target) if target else wish
        emergency = require_reason(wish.emergency) if wish.emergency is not None else None
        if dry_run:
            return self.preview(wish, told=self.report).revisions
        self.let_writes_in()
        pending = self._admitted(wish)
        done: dict[str, Revision] = {}  # by every attempt

        def attempt() -> None:
            for line in () if self.is_rehearsal else require_provisioned(self.databases, self.grants):
                self.report(f"created or corrected {line}")
            if not pending:
                return
            with self._lease() as run:
                plan = self._plan_up(wish)
                foundation = self._incomplete(plan)
                done.update({revision.name: revision for revision in (*foundation, *plan.revisions)})
                self._complete(foundation, run)
                allow_late(plan, wish.allow_late, run=run, actor=self.actor)
                if emergency is not None:
                    lacking = self.gate.unpromoted(self.databases, plan.revisions)
                    allow_emergency(lacking, reason=emergency, run=run, actor=self.actor)
                    if lacking:
                        self.on_emergency([revision.name for revision in lacking])
                self._run(plan, run)

        persist(attempt, clock=self.clock, report=self.report)
        refuse_waiting(self._plan_up(wish))
        return tuple(done.values())

    def complete(self, name: str) -> Revision:
        """Contract the online change *name*: the old shape goes, once both agree on every document.

        Raises:
            LockHeld: When somebody else runs migrations.
            ShapesDisagree: When a document disagrees, nobody keeps the shapes in step, or the old one is still written.
            UnknownName: When no online change of this name is open.
        """
        revision = find_open(self.scripts(), name)
        change = revision.load().change
        if change is None:
            raise UnknownName(f"{revision.name} declares no online change")

        def attempt() -> None:
            with self._lease() as run:
                if revision.name not in self.history.applied():  # by an attempt whose answer was lost
                    self._contract(find_open(self.scripts(), name), change, run)
            own.forget(self.databases, revision.name)

        persist(attempt, clock=self.clock, report=self.report)
        return revision

    def _contract(self, revision: Revision, change: Shape, run: Run) -> None:
        with self.following(revision):
            ctx = self._context(Direction.UP, revision, run, drop_data=False)
            ctx.script = f"complete {revision.name}"
            if self.history.past().traces[revision.name].mark is not Mark.COMPLETING:
                phases.require_agreement(ctx, change)
                self._record(run, revision, Mark.COMPLETING)
            phases.contract(ctx, change)
            self._record(run, revision, Mark.APPLIED, checkpoint={}, settles=Because.COMPLETED)

    def down(self, target: str, *, dry_run: bool = False, drop_data: bool = False) -> tuple[Revision, ...]:
        """Undo revisions until *target* and what it depends on is left; return what was undone, or would be.

        Raises:
            LockHeld: When somebody else runs migrations.
            StepFailed: When a collection on the way holds documents; nothing was undone.
        """
        if dry_run:
            return self.preview_down(target, drop_data=drop_data, told=self.report).revisions
        self.let_writes_in()
        if not self._to_undo(target).revisions:
            return ()
        done: dict[str, Revision] = {}

        def attempt() -> None:
            with self._lease() as run:
                quiet = replace(self, report=lambda _: None)
                quiet.down(target, dry_run=True, drop_data=drop_data)  # what would refuse half-way refuses now
                plan = plan_down(self.scripts(), target)
                done.update({revision.name: revision for revision in plan.revisions})
                self._run(plan, run, drop_data=drop_data)

        persist(attempt, clock=self.clock, report=self.report)
        return tuple(done.values())

    def undo(self, revision: Revision) -> None:
        """Undo one revision, which was applied last, with the documents of collections that it created.

        Raises:
            LockHeld: When somebody else runs migrations.
        """

        def attempt() -> None:
            with self._lease() as run:
                self._run(Plan(direction=Direction.DOWN, revisions=(revision,)), run, drop_data=True)

        persist(attempt, clock=self.clock, report=self.report)

    def rollback(self, name: str) -> Revision:
        """Undo the online change *name* alone: the new shape goes, whose values the old one has.

        Raises:
            IrreversibleMigration: When it is completed.
            LockHeld: When somebody else runs migrations.
            ShapesDisagree: When a document disagrees, or the new shape is still written.
        """
        plan = plan_rollback(self.scripts(), name)
        for revision in plan.revisions:
            revision.load()

        def attempt() -> None:
            with self._lease() as run:
                self._run(plan_rollback(self.scripts(), name), run)

        persist(attempt, clock=self.clock, report=self.report)
        return find_one(self.scripts().graph(), name)

    def accept(self, name: str, *, reason: str) -> Fault:
        """Let the script *name* count as what the folder holds now; return what was accepted.

        Raises:
            LockHeld: When somebody else runs migrations.
            RejectedError: When the reason says nothing, or *name* is not applied.
            RevisionMissing: When it is half applied and not in the folder.
        """
        why = require_reason(reason)
        fault = find_fault(self.scripts(), name)

        def attempt() -> None:
            with self._lease() as run:
                accept(self.scripts(), name, reason=why, history=self.history, run=run, actor=self.actor)

        persist(attempt, clock=self.clock, report=self.report)
        return fault

    def accept_exchange(self, collection: str, *, reason: str) -> bool:
        """Let the exchange of a rebuilt *collection* count as settled; False where the oplog could still settle it.

        Raises:
            LockHeld: When somebody else runs migrations.
            RejectedError: When the reason says nothing, or no exchange waits for it.
        """
        why = require_reason(reason)
        with self._hold() as run:  # without ``recover``, which this one ends for good
            return accept_exchange(self._hands("recovery", run), collection, reason=why)

    def perform(self, name: str, change: Callable[[Context], None], *, dry_run: bool = False) -> None:
        """Carry out *change* outside of any script: under the lease, as *name* in the audit log, not in the history.

        Raises:
            LockHeld: When somebody else runs migrations.
        """
        if dry_run:
            change(self._hands(name, None))
            return

        def attempt() -> None:
            for line in require_provisioned(self.databases, self.grants):
                self.report(f"created or corrected {line}")
            with self._lease() as run, driver_errors():
                change(self._hands(name, run))

        persist(attempt, clock=self.clock, report=self.report)

    def verify(self) -> tuple[Problem, ...]:
        """Return what is not as the applied scripts say: their verify steps, indexes and validators; writes nothing."""
        applied = self.history.applied()

        def inspect(revision: Revision, inspection: Inspection) -> None:
            ctx = replace(self._hands(revision.name, None), report=lambda _: None, inspection=inspection)
            with script_errors(revision.name):
                revision.up(ctx)

        revisions = [revision for revision in self.scripts().graph().revisions if revision.name in applied]
        return find_problems(self.databases, revisions, inspect)

    def _plan_up(self, wish: Wish) -> Plan:
        if wish.only:
            return plan_only(self.scripts(), wish.only, allow_late=wish.allow_late)
        return plan_up(self.scripts(), wish.target, allow_late=wish.allow_late)

    def count_set_aside(self, revisions: Sequence[Revision]) -> int:
        """Return how many documents these revisions could not change, and nobody has settled since."""
        return count_unsettled(self.databases, [revision.name for revision in revisions])

    def retry_set_aside(self) -> tuple[int, int]:
        """Try documents that were set aside again; return how many went well, and how many are still set aside.

        Raises:
            LockHeld: When somebody else runs migrations.
        """
        past = self.history.past()
        revisions = [revision for revision in self.revisions if revision.name in past.applied | past.open]
        before = self.count_set_aside(revisions)

        def attempt() -> None:
            with self._lease() as run:
                for revision in revisions:
                    if self.count_set_aside([revision]):
                        ctx = self._context(Direction.UP, revision, run, drop_data=False)
                        with driver_errors(), script_errors(revision.name):
                            revision.up(replace(ctx, script="", retries=True))

        if before:
            persist(attempt, clock=self.clock, report=self.report)
        left = self.count_set_aside(revisions)
        return before - left, left

    def let_writes_in(self) -> None:
        """Let writes in that a runner refused when it died; whatever is wrong with the scripts, an application waits.

        Raises:
            LockHeld: When the runner that refuses them is alive.
        """

        def attempt() -> None:
            with self._lease():
                pass  # which does it

        if is_frozen(self.databases):
            persist(attempt, clock=self.clock, report=self.report)

    def preview(self, wish: Wish = ALL, *, told: Report = unsaid) -> Preview:
        """Return what ``up`` would do, as *wish* says: each step with its commands and what it costs; writes nothing.

        Args:
            told: Where the lines of the scripts go; they are in the preview, too.

        Raises:
            GovernanceViolation: When the rules refuse a script in production.
            PromotionRefused: When staging has not vouched for a script, and this is no emergency.
            MigrationError: When folder and history do not fit, or a step would be refused.
        """
        return self._sketch(Plan(direction=Direction.UP, revisions=self._admitted(wish)), told)

    def _admitted(self, wish: Wish) -> tuple[Revision, ...]:
        """Return what is pending; what cannot be loaded, or is not admitted, refuses before anything is written."""
        plan = self._plan_up(wish)
        pending = (*self._incomplete(plan), *plan.revisions)
        if not pending:
            refuse_waiting(plan)
        for revision in pending:
            revision.load()
        self.admission.check(pending, self.revisions, self.report)
        self.gate.check(self.databases, plan.revisions, is_emergency=wish.emergency is not None, report=self.report)
        return pending

    def preview_down(self, target: str, *, drop_data: bool = False, told: Report = unsaid) -> Preview:
        """Return what ``down`` to *target* would do; writes nothing.

        Raises:
            StepFailed: When a collection on the way holds documents.
        """
        return self._sketch(self._to_undo(target), told, drop_data=drop_data)

    def _to_undo(self, target: str) -> Plan:
        plan = plan_down(self.scripts(), target)
        for revision in plan.revisions:
            revision.load()
        return plan
