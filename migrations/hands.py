"""The hands of a migration: steps that are begun, committed with their audit entry and their place, and finished."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from compliance.audit.entry import Detail, Entry
from compliance.datamap.pseudonym import Pseudonyms
from compliance.errors import AppliedStepEdited, DuplicateEntry
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Db, Document, Session
from compliance.roles import Grants
from migrations.journal import Journal
from migrations.ops.atomic import Transaction
from migrations.ops.ddl import Patience
from migrations.progress import Follow, Progress
from migrations.sketch import Sketch
from migrations.step import Kind, Step, digest
from migrations.throttle.throttle import Throttle
from migrations.verification import Inspection

Effect = Callable[[Session], Mapping[str, Detail] | None]
Transform = Callable[[Document], Mapping[str, Any]]
Make = Callable[[Document], Mapping[str, Any] | None]
Update = Document | list[Document]
Cost = Mapping[str, int]
Transact = Callable[[Transaction], object]
Opaque = Callable[[Db], object]
FREE: Cost = {}
GROWTH = 40
ACCEPTING = "the new text says what was done, `compliance migrate repair --accept NAME --reason TEXT`"


class Compared(Exception):
    """Every step that was carried out, or begun, is as it was."""


class Report(Protocol):
    """Where the lines of a migration go, for people."""

    def __call__(self, line: str, /) -> None:
        """Show *line*."""
        ...


@dataclass(slots=True, kw_only=True)
class Hands:
    """What an operation works with: one script, or one change, on its way under the lease.

    Attributes:
        run: The lease under which changes commit; None in a dry run, which writes nothing.
        script: Names the direction and the revision: where an interrupted run of the same script stood is where this
            one goes on. Empty outside of scripts: then the checkpoint of one that died stays.
        journal: What this passage through the script has carried out already.
        batch_docs: How many documents the first batch of a step looks at.
        most_docs: How many one may grow to; None for forty times the first.
        drop_data: Whether collections that hold documents may be dropped on the way down.
        throttle: What holds batches back; None for nothing.
        retries: Whether documents that were set aside are tried again; all other steps are passed by.
        sketch: What a dry run records: the commands of each step, and what would be there by now.
        left: In a dry run, the checkpoint of a run that was interrupted.
        patience: How long commands that take a lock are asked again.
        follow: Told how far a step is, instead of a line for people.
        pseudonyms: How erased people are named, where the data map has a personal root key.
        inspection: What the verify steps find, where nothing else of the script is carried out.
        asks_nobody: Whether gates for a person are open, as on a copy.
        compares: Whether the steps are only compared with those that were carried out, or begun, before.
    """

    databases: Databases
    revision: str
    actor: str
    grants: Grants
    report: Report
    run: Run | None
    script: str = ""
    batch_docs: int = 500
    most_docs: int | None = None
    drop_data: bool = False
    journal: Journal | None = None
    steps: int = 0
    commits: int = 0
    retries: bool = False
    throttle: Throttle | None = None
    sketch: Sketch = field(default_factory=Sketch)
    left: Mapping[str, Any] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)
    follow: Follow | None = None
    inspection: Inspection | None = None
    pseudonyms: Pseudonyms | None = None
    asks_nobody: bool = False
    compares: bool = False

    @property
    def largest_batch(self) -> int:
        """How many documents a batch may look at."""
        return self.most_docs or self.batch_docs * GROWTH

    @property
    def fence(self) -> int:
        """The fence of the lease."""
        return self._run.job.fence

    @property
    def begun(self) -> int:
        """The number of the last step that was carried out, or begun, before; 0 where none was."""
        begun: int = self._left().get("step", 0)
        return max(begun, *self.journal.done, 0) if self.journal is not None else begun

    @property
    def is_dry_run(self) -> bool:
        """Whether changes are shown only."""
        return self.run is None

    def begin(self, kind: Kind, what: str, **arguments: Any) -> Step | None:
        """Number the next step of the script; return None when an earlier run has carried it out.

        A step of the kind ``ddl`` is always returned: what is there decides.

        Args:
            kind: How far it is atomic.
            what: One line for people.
            arguments: All that decides what it does.

        Raises:
            AppliedStepEdited: When an earlier run carried out, or began, another step in this place.
        """
        self.steps += 1
        if self.inspection is not None:
            return self.inspection.begin(self.steps, kind, what, arguments)
        if self.retries:
            is_tried = kind is Kind.BACKFILL
            return Step(number=self.steps, kind=kind, what=what, digest=digest(kind, arguments)) if is_tried else None
        left = self._left()
        is_begun = left.get("step") == self.steps
        step = Step(
            number=self.steps,
            kind=kind,
            what=what,
            digest=digest(kind, arguments),
            place=left.get("place", {}) if is_begun else {},
        )
        done = self.journal.done.get(step.number) if self.journal is not None else None
        self._refuse_edited(step, done=done, begun=left if is_begun else {})
        if self.compares:
            if step.number >= self.begun:
                raise Compared
            return None
        if done is None or kind is Kind.DDL:
            if self.is_dry_run:
                self.sketch.begin(step)
            return step
        self.report(f"{what}: done before the interruption")
        return None

    def _left(self) -> Mapping[str, Any]:
        """Return the checkpoint that an interrupted run of this very script left; empty where there is none."""
        left = (self.run.job.checkpoint if self.run else self.left) if self.script else {}
        return left if left.get("script") == self.script else {}

    def _refuse_edited(self, step: Step, *, done: str | None, begun: Mapping[str, Any]) -> None:
        before = done or begun.get("digest")
        if before in (None, step.digest):
            return
        is_accepted = self.journal is not None and self.journal.is_accepted
        if is_accepted and (done or begun.get("what") == step.what):
            return
        raise AppliedStepEdited(
            f"{self.revision}: step {step.number} ({step.what}) is not the one that was {'done' if done else 'begun'} "
            "before the interruption, or uses what is not as it was; restore it, or undo the script first; or, where "
            f"{ACCEPTING}"
        )

    def commit(
        self,
        step: Step,
        details: Mapping[str, Detail],
        effect: Effect | None = None,
        *,
        place: Callable[[], Mapping[str, Any]],
    ) -> bool:
        """Commit a part of *step*: *effect*, its audit entry, and *place*, where a successor goes on.

        Args:
            step: What ``begin`` returned.
            details: For the audit entry; what *effect* returns is added.
            effect: May run several times.
            place: Asked after *effect*.

        Returns:
            False when an earlier attempt, whose end nobody knew, has committed: this one did nothing, and
            ``stored_place`` says where that one ended.
        """

        def checkpoint() -> Mapping[str, Any]:
            return self._checkpoint(step, place())

        return self._commit(details, effect, checkpoint=checkpoint if self.script else None)

    def leave(self, step: Step, place: Mapping[str, Any]) -> None:
        """Say where *step* stands without having done anything; for who looks at a run that waits."""
        checkpoint = self._checkpoint(step, place)
        if self.script:
            self._run.commit(lambda _: Outcome(checkpoint=checkpoint))

    def _checkpoint(self, step: Step, place: Mapping[str, Any]) -> Mapping[str, Any]:
        known = {"script": self.script, "step": step.number, "what": step.what, "digest": step.digest}
        return {**known, "place": dict(place)}

    def stored_place(self, step: Step) -> Mapping[str, Any]:
        """Return where *step* stands by what was committed last."""
        run = self._run
        job = run.ledger.find(run.job.request_id)
        left = job.checkpoint if job is not None else {}
        is_ours = left.get("script") == self.script and left.get("step") == step.number
        place: Mapping[str, Any] = left.get("place", {}) if is_ours else {}
        return place

    def tell(self, progress: Progress) -> None:
        """Say how far a step is."""
        if self.follow is not None:
            self.follow(progress)
        else:
            self.report(progress.line)

    def now(self) -> datetime:
        """Return the time of this machine."""
        return self._run.clock.now()

    def finish(
        self, step: Step, details: Mapping[str, Detail], effect: Effect | None = None, *, cost: Cost = FREE
    ) -> None:
        """Commit the end of *step*: *effect*, its audit entry, and that nobody carries it out again.

        *cost* is kept in the journal: ``documents`` and ``work_ms`` of a step with batches.
        """

        def transaction(session: Session) -> Mapping[str, Detail] | None:
            found = effect(session) if effect is not None else None
            if self.journal is not None:
                self.journal.add(step, at=self._run.clock.now(), by=self.actor, session=session, cost=cost)
            return found

        self._commit(details, transaction, checkpoint=dict if self.script else None)

    def check(self) -> None:
        """Return if the run should go on: for work between two commits that takes long.

        Raises:
            LeaseLost: When somebody else runs migrations now, or this process is stopping.
        """
        self._run.check()

    def confirm(self) -> None:
        """Return if the lease is ours by a commit that compares the fence, and does nothing else.

        For behind, or right before, a command that no transaction holds: ``check`` knows what the heartbeat has heard,
        and a process that slept has heard nothing.

        Raises:
            LeaseLost: When somebody else runs migrations now, or this process is stopping.
        """
        self._run.commit(lambda _: Outcome())

    def sleep(self, duration: timedelta) -> None:
        """Wait, under the lease."""
        self._run.clock.sleep(duration)

    @property
    def _run(self) -> Run:
        if self.run is None:
            raise RuntimeError("a dry run commits nothing")
        return self.run

    def _commit(
        self,
        details: Mapping[str, Detail],
        effect: Effect | None,
        *,
        checkpoint: Callable[[], Mapping[str, Any]] | None,
    ) -> bool:
        run = self._run

        def transaction(session: Session) -> Outcome:
            found = effect(session) if effect is not None else None
            entry = Entry(
                event=f"{self.revision}#{run.job.fence}#{self.commits + 1}",
                entity_type="migration",
                entity_id=self.revision,
                action="migration.step",
                created_at=run.clock.now(),
                performed_by=self.actor,
                details={**details, **(found or {})},
            )
            return Outcome(entries=(entry,), checkpoint=checkpoint() if checkpoint is not None else None)

        is_ours = True
        try:
            run.commit(transaction)
        except DuplicateEntry:  # under our fence: an attempt of ours committed, and the answer was lost
            is_ours = False
        self.commits += 1
        return is_ours
