"""What a migration script works with: ``ctx`` carries the operations, each idempotent by the observed state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from compliance.health.index_spec import Keys, Options
from compliance.mongo import Db, Document
from migrations import ops
from migrations.hands import Effect, Hands, Make, Opaque, Report, Transact, Transform, Update
from migrations.online import phases
from migrations.online.shape import Shape

__all__ = ["Context", "Effect", "Report", "Shape", "Transform", "timedelta"]  # a script may not import datetime

ERROR_BUDGET = 100


@dataclass(slots=True, kw_only=True)
class Context(Hands):
    """What a script may do, each operation one step."""

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
        admit = partial(phases.refuse_open, self, collection)
        ops.rebuild.rebuild(self, wanted, freeze_seconds=freeze_seconds, admit=admit)

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
