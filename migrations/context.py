"""What a migration script works with: ``ctx`` carries the operations, each idempotent by the observed state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from compliance.audit.entry import Detail, Entry
from compliance.errors import AppliedStepEdited, DuplicateEntry
from compliance.health.index_spec import Keys, Options
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Db, Document, Session
from compliance.roles import Grants
from migrations.journal import Journal
from migrations.online.shape import Shape
from migrations.ops.atomic import Transaction
from migrations.ops.ddl import Patience
from migrations.progress import Follow, Progress
from migrations.sketch import Sketch
from migrations.step import Kind, Step, digest
from migrations.throttle.throttle import Throttle
from migrations.verification import Inspection

__all__ = ["Context", "Effect", "Report", "Shape", "Transform", "timedelta"]  # a script may not import datetime

Effect = Callable[[Session], Mapping[str, Detail] | None]
Transform = Callable[[Document], Mapping[str, Any]]
Make = Callable[[Document], Mapping[str, Any] | None]
Update = Document | list[Document]
Cost = Mapping[str, int]
FREE: Cost = {}
ERROR_BUDGET = 100
GROWTH = 40
Transact = Callable[[Transaction], object]
Opaque = Callable[[Db], object]


class Report(Protocol):
    """Where the lines of a migration go, for people."""

    def __call__(self, line: str, /) -> None:
        """Show *line*."""
        ...


@dataclass(slots=True, kw_only=True)
class Context:
    """The hands of a migration script.

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
        inspection: What the verify steps find, where nothing else of the script is carried out.
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

    @property
    def largest_batch(self) -> int:
        """How many documents a batch may look at."""
        return self.most_docs or self.batch_docs * GROWTH

    @property
    def fence(self) -> int:
        """The fence of the lease."""
        return self._run.job.fence

    @property
    def is_dry_run(self) -> bool:
        """Whether changes are shown only."""
        return self.run is None

    def ensure_foundation(self) -> None:
        """Create our own collections and their indexes; audit log and roles are there already."""
        ops.foundation.ensure(self)

    def create_collection(self, name: str, *, schema: Document, level: str = "strict") -> None:
        """Create the collection *name* with a ``$jsonSchema`` validator, or give it this one."""
        ops.collections.create(self, name, schema, level)

    def set_schema(self, name: str, *, schema: Document, level: str = "strict") -> None:
        """Change the validator of an existing collection.

        Args:
            name: The collection.
            schema: Its ``$jsonSchema``.
            level: ``strict``, or ``moderate``: documents that break it already may still be updated.
        """
        ops.collections.set_schema(self, name, schema, level)

    def roll_out_validator(self, name: str, schema: Document, *, to: str = "strict") -> None:
        """Give a collection another validator while the application writes: warn, count violators, moderate, strict.

        Four steps; ``strict`` is refused while a document breaks it, and names them. The old validator is in force
        until the new one is.

        Args:
            name: The collection.
            schema: Its ``$jsonSchema``.
            to: ``strict``, or ``moderate`` where documents that break it are to stay.
        """
        ops.validator.roll_out(self, name, schema, to=to)

    def drop_collection(self, name: str) -> None:
        """Drop the collection *name*; refused while it holds documents, unless data may be dropped."""
        ops.collections.drop(self, name)

    def create_index(
        self,
        collection: str,
        name: str,
        keys: Keys,
        *,
        unique: bool = False,
        options: Options | None = None,
        expires_because: str = "",
    ) -> None:
        """Create an index, once nothing is found that would make its build fail; wait for a build that runs.

        Args:
            collection: Where; it is locked for moments only.
            name: Its name.
            keys: Fields with directions, ``text`` or ``2dsphere``.
            unique: Refused where documents are duplicates, which are named; ``create_unique`` does it while
                the application writes.
            options: Others, by the server's names: ``partialFilterExpression``, ``sparse``, ``expireAfterSeconds``, ...
            expires_because: The ground for ``expireAfterSeconds`` where the data map knows the collection.
        """
        ops.indexes.create(
            self, collection, name, keys, unique=unique, options=options or {}, expires_because=expires_because
        )

    def create_unique(self, collection: str, name: str, keys: Keys, *, options: Options | None = None) -> None:
        """Create a unique index while the application writes: build, refuse new duplicates, look again, make it unique.

        Three steps; duplicates are named, and then nothing new is refused.
        """
        ops.unique.create(self, collection, name, keys, options or {})

    def hide_index(self, collection: str, name: str) -> None:
        """Hide an index from queries; it is kept up to date. The first half of dropping one."""
        ops.hidden.hide(self, collection, name)

    def unhide_index(self, collection: str, name: str) -> None:
        """Show a hidden index to queries again: the way back of ``hide_index``."""
        ops.hidden.unhide(self, collection, name)

    def drop_index(self, collection: str, name: str, *, soaked: timedelta | None = None) -> None:
        """Drop an index if it is there.

        Args:
            collection: Where.
            name: Its name.
            soaked: How long it must have been hidden; until then the run ends with exit code 75.
        """
        ops.indexes.drop(self, collection, name, soaked=soaked)

    def backfill(
        self,
        collection: str,
        *,
        where: Document,
        update: Update,
        error_budget: int = ERROR_BUDGET,
        keep_before: timedelta | None = None,
    ) -> None:
        """Update every document that matches *where* in fenced batches, until none does.

        Args:
            collection: Its name.
            where: What *update* takes a document out of; that makes a repeat harmless.
            update: An update document, or a pipeline.
            error_budget: How many documents that the server refuses may be set aside; with 0 the first one ends it.
            keep_before: For how long what is overwritten is kept, so that ``restore`` gives it back; at most 90 days.
        """
        ops.backfill.backfill(self, collection, where, update, error_budget=error_budget, keep_before=keep_before)

    def walk(
        self,
        collection: str,
        *,
        where: Document,
        update: Update,
        error_budget: int = ERROR_BUDGET,
        keep_before: timedelta | None = None,
    ) -> None:
        """Update every document that matches *where* exactly once, in the order of ``_id``, whatever *update* does.

        For updates of which a repeat does harm, such as ``$inc``. A document that is inserted while the step runs, with
        an ``_id`` that sorts before the place reached, is not visited: let the application write the new shape first,
        or use ``backfill``, which looks again.
        """
        ops.walk.walk(self, collection, where, update, error_budget=error_budget, keep_before=keep_before)

    def transform(
        self,
        collection: str,
        *,
        where: Document,
        fields: tuple[str, ...],
        function: Transform,
        error_budget: int = ERROR_BUDGET,
        keep_before: timedelta | None = None,
    ) -> None:
        """Compute new values of *fields* from each document that matches *where*, in fenced batches.

        A document for which *function* raises ValueError is set aside with its ``_id`` and the reason, and reported;
        a document that changes while it is read is read again. An interrupted run goes on behind its last batch, so
        each document is changed once.
        """
        ops.transform.transform(
            self, collection, where, fields, function, error_budget=error_budget, keep_before=keep_before
        )

    def rebuild(
        self,
        collection: str,
        *,
        function: Make | None = None,
        pipeline: tuple[Document, ...] | list[Document] = (),
        schema: Document | None = None,
        options: Document | None = None,
        freeze_seconds: float = 5,
    ) -> None:
        """Let a copy take the place of *collection*: for what cannot be done in place. Writes are refused for a moment.

        Args:
            collection: No view, not capped, no time series; no view may show it.
            function: Makes a new document of an old one, with the same ``_id``, or None where there is to be none.
            pipeline: Does that instead, by stages that look at one document.
            schema: The ``$jsonSchema`` from then on; without it the validator stays.
            options: Others of the new collection, by the server's names, such as ``collation``.
            freeze_seconds: How long writes may be refused; longer, and they are let in again.
        """
        wanted = ops.rebuild.Wanted(
            collection=collection, function=function, pipeline=pipeline, schema=schema, options=options or {}
        )
        ops.rebuild.rebuild(self, wanted, freeze_seconds=freeze_seconds)

    def drop_rebuilt(self, collection: str) -> None:
        """Drop the copy of a ``rebuild`` that did not take the place of its collection."""
        ops.rebuild.drop_rebuilt(self, collection)

    def restore(self, collection: str) -> None:
        """Give documents back what ``keep_before`` kept of them: the way back, where no other one is written.

        A document that was changed since in these fields stays as it is and is told of; what is gone stays gone.
        """
        ops.restore.restore(self, collection)

    def atomic(self, what: str, function: "Transact") -> None:
        """Run *function* in one transaction, which marks the step as done, too.

        Args:
            what: One line for people.
            function: Given an object with ``find``, ``insert``, ``update`` and ``delete``; may run several times.
        """
        ops.atomic.atomic(self, what, function)

    def verify(self, collection: str, *, none: Document | None = None, count: Mapping[str, Any] | None = None) -> None:
        """Stop unless the data is as it should be.

        Args:
            collection: Its name.
            none: A filter that no document may match.
            count: ``{"where": filter, "exactly": n}``, or with ``at_least`` and ``at_most``.
        """
        ops.verify.verify(self, collection, none, count)

    def gate(
        self,
        name: str,
        *,
        until: Callable[[Db], bool] | None = None,
        approval: bool = False,
        wait_seconds: float = 10,
    ) -> None:
        """Wait until a condition holds, or a person approves; a run that has waited ends, and the next waits on.

        Args:
            name: What ``compliance migrate approve`` calls it.
            until: Looks at the application's database.
            approval: Wait for a person.
            wait_seconds: How long this run waits.
        """
        ops.gate.gate(self, name, until, approval=approval, patience=timedelta(seconds=wait_seconds))

    def python(self, what: str, function: "Opaque", *, reason: str) -> None:
        """Run *function* on the application's database, outside of any transaction; a repeat must be harmless.

        Args:
            what: One line for people.
            function: Given the database; an interrupted run begins it again.
            reason: Why no other step does it; it stays in the audit log.
        """
        ops.python.python(self, what, function, reason=reason)

    def check_health(self, *checks: str, wait_seconds: float = 60) -> None:
        """Stop unless the workers find that these health checks hold; all of them when none is named."""
        ops.request.request(
            self, ops.request.HEALTH, {"checks": list(checks)}, patience=timedelta(seconds=wait_seconds)
        )

    def export_collection(self, collection: str, *, package: str, wait_seconds: float = 60) -> None:
        """Let the workers export *collection* to the package *package*, before a step that changes or drops it."""
        values = {"collection": collection, "package": package}
        ops.request.request(self, ops.request.EXPORT, values, patience=timedelta(seconds=wait_seconds))

    def import_collection(self, collection: str, *, package: str, wait_seconds: float = 60) -> None:
        """Let the workers import *collection* from a package; the data map must declare it under ``imports``."""
        values = {"collection": collection, "package": package}
        ops.request.request(self, ops.request.IMPORT, values, patience=timedelta(seconds=wait_seconds))

    def erase_people(
        self, collection: str, *, where: Document, subject: str = "_id", error_budget: int = ERROR_BUDGET
    ) -> None:
        """Ask the workers to erase each person of *collection* who matches *where*; the step does not wait for them.

        Args:
            collection: Its name.
            where: Who is to be erased, such as those who were deleted softly years ago.
            subject: The field with the id of the person.
            error_budget: How many documents without such an id may be set aside.
        """
        ops.request.erase(self, collection, where, subject=subject, error_budget=error_budget)

    def partition(self, collection: str, *, field: str, every: str) -> None:
        """Share documents out among time buckets such as ``analytics_2026_11``; a view ``<collection>_all`` shows all.

        Two steps. New documents go into *collection* as before, until it is applied again.

        Args:
            collection: Of documents that are written once, such as events.
            field: Holds the date; a document without one stays.
            every: ``day``, ``month`` or ``year``.
        """
        scheme = ops.partition.make_scheme(collection, field=field, every=every)
        ops.partition.apply(self, scheme)

    def merge_partitions(self, collection: str) -> None:
        """Bring the documents of all buckets back: the way back of ``partition``."""
        ops.partition.merge(self, collection)

    def drop_buckets(self, collection: str, *, keep: int) -> None:
        """Drop all buckets but the present one and the *keep* before it; refused where a legal hold is in one."""
        ops.partition.drop(self, collection, keep=keep)

    def shard_collection(self, collection: str, keys: Keys) -> None:
        """Shard a collection on a sharded cluster; refused elsewhere with the reason."""
        ops.partition.shard(self, collection, keys)

    def expand(self, change: Shape) -> None:
        """Begin an online change: both shapes may be there, and every document gets the new one."""
        phases.expand(self, change)

    def undo(self, change: Shape) -> None:
        """Roll an online change back: the new shape goes, whose values the old one has."""
        phases.undo(self, change)

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
        left = (self.run.job.checkpoint if self.run else self.left) if self.script else {}
        is_begun = left.get("script") == self.script and left.get("step") == self.steps
        step = Step(
            number=self.steps,
            kind=kind,
            what=what,
            digest=digest(kind, arguments),
            place=left.get("place", {}) if is_begun else {},
        )
        done = self.journal.done.get(step.number) if self.journal is not None else None
        before = done or (left.get("digest") if is_begun else None)
        if before not in (None, step.digest):
            raise AppliedStepEdited(
                f"{self.revision}: step {step.number} ({what}) is not the one that was {'done' if done else 'begun'} "
                "before the interruption; restore it, or undo the script first"
            )
        if done is None or kind is Kind.DDL:
            if self.is_dry_run:
                self.sketch.begin(step)
            return step
        self.report(f"{what}: done before the interruption")
        return None

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
            return {"script": self.script, "step": step.number, "digest": step.digest, "place": dict(place())}

        return self._commit(details, effect, checkpoint=checkpoint if self.script else None)

    def leave(self, step: Step, place: Mapping[str, Any]) -> None:
        """Say where *step* stands without having done anything; for who looks at a run that waits."""
        checkpoint = {"script": self.script, "step": step.number, "digest": step.digest, "place": dict(place)}
        if self.script:
            self._run.commit(lambda _: Outcome(checkpoint=checkpoint))

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


from migrations import ops  # noqa: E402 - the operations need the context they work on
from migrations.online import phases  # noqa: E402 - as they do
