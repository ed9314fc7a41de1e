"""What a migration script works with: ``ctx`` carries the operations, each idempotent by the observed state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from compliance.audit.entry import Detail, Entry
from compliance.errors import AppliedStepEdited
from compliance.health.index_spec import Keys, Options
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Document, Session
from compliance.roles import Grants
from migrations.journal import Journal
from migrations.ops.ddl import Patience
from migrations.step import Kind, Step, digest

__all__ = ["Context", "Effect", "Report", "Transform", "timedelta"]  # a script may not import datetime

Effect = Callable[[Session], Mapping[str, Detail] | None]
Transform = Callable[[Document], Mapping[str, Any]]


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
        drop_data: Whether collections that hold documents may be dropped on the way down.
        planned: In a dry run, what an earlier script would have created: ``collection:NAME``, ``index:NAME``.
        patience: How long commands that take a lock are asked again.
    """

    databases: Databases
    revision: str
    actor: str
    grants: Grants
    report: Report
    run: Run | None
    script: str = ""
    batch_docs: int = 500
    drop_data: bool = False
    journal: Journal | None = None
    steps: int = 0
    commits: int = 0
    planned: set[str] = field(default_factory=set)
    patience: Patience = field(default_factory=Patience)

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

    def backfill(self, collection: str, *, where: Document, update: Document) -> None:
        """Update every document that matches *where* in fenced batches, until none does.

        *update* must take documents out of *where*; that makes a repeat harmless.
        """
        ops.data.backfill(self, collection, where, update)

    def transform(self, collection: str, *, where: Document, fields: tuple[str, ...], function: Transform) -> None:
        """Compute new values of *fields* from each document that matches *where*, in fenced batches.

        A document for which *function* raises ValueError is set aside with its ``_id`` and the reason, and reported;
        a document that changes while it is read is read again. An interrupted run goes on behind its last batch, so
        each document is changed once.
        """
        ops.data.transform(self, collection, where, fields, function)

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
        left = self.run.job.checkpoint if self.run and self.script else {}
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
            return step
        self.report(f"{what}: done before the interruption")
        return None

    def commit(
        self, step: Step, details: Mapping[str, Detail], effect: Effect | None = None, *, place: Mapping[str, Any]
    ) -> None:
        """Commit a part of *step*: *effect*, its audit entry, and *place*, where a successor goes on."""
        checkpoint = {"script": self.script, "step": step.number, "digest": step.digest, "place": dict(place)}
        self._commit(details, effect, checkpoint=checkpoint if self.script else None)

    def finish(self, step: Step, details: Mapping[str, Detail], effect: Effect | None = None) -> None:
        """Commit the end of *step*: *effect*, its audit entry, and that nobody carries it out again."""

        def transaction(session: Session) -> Mapping[str, Detail] | None:
            found = effect(session) if effect is not None else None
            if self.journal is not None:
                self.journal.add(step, at=self._run.clock.now(), by=self.actor, session=session)
            return found

        self._commit(details, transaction, checkpoint={} if self.script else None)

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
        self, details: Mapping[str, Detail], effect: Effect | None, *, checkpoint: Mapping[str, Any] | None
    ) -> None:
        run = self._run
        self.commits += 1

        def transaction(session: Session) -> Outcome:
            found = effect(session) if effect is not None else None
            entry = Entry(
                event=f"{self.revision}#{run.job.fence}#{self.commits}",
                entity_type="migration",
                entity_id=self.revision,
                action="migration.step",
                created_at=run.clock.now(),
                performed_by=self.actor,
                details={**details, **(found or {})},
            )
            return Outcome(entries=(entry,), checkpoint=checkpoint)

        run.commit(transaction)


from migrations import ops  # noqa: E402 - the operations need the context they work on
