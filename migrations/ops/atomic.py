"""A few writes in one transaction, which also marks the step as done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bson import json_util

from compliance.audit.entry import Detail
from compliance.mongo import Db, Document, Session, driver_errors
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.context import Context, Report, Transact, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What the function of an atomic step works with; in a dry run it reads, and shows what it would write.

    Attributes:
        session: None in a dry run.
        written: How many documents each kind of write changed so far.
    """

    database: Db
    session: Session | None
    report: "Report"
    written: dict[str, int] = field(default_factory=dict)

    def find(self, collection: str, where: Document, fields: tuple[str, ...] = ()) -> list[Document]:
        """Return the documents that match *where*, with these *fields* or all; they are held in memory."""
        with driver_errors(self.session):
            found = self.database[collection].find(where, dict.fromkeys(fields, 1) or None, session=self.session)
            return list(found)

    def insert(self, collection: str, *documents: Document) -> int:
        """Insert *documents* and return how many."""
        if self.session is None:
            return self._show({"insert": collection, "documents": list(documents)}, len(documents))
        inserted = self.database[collection].insert_many([dict(one) for one in documents], session=self.session)
        return self._note("inserted", len(inserted.inserted_ids))

    def update(self, collection: str, where: Document, update: "Update") -> int:
        """Update every document that matches *where* and return how many were changed."""
        if self.session is None:
            return self._show({"update": collection, "where": where, "u": update}, self._count(collection, where))
        changed = self.database[collection].update_many(where, update, session=self.session)
        return self._note("updated", changed.modified_count)

    def delete(self, collection: str, where: Document) -> int:
        """Delete every document that matches *where* and return how many."""
        if self.session is None:
            return self._show({"delete": collection, "where": where}, self._count(collection, where))
        return self._note("deleted", self.database[collection].delete_many(where, session=self.session).deleted_count)

    def _count(self, collection: str, where: Document) -> int:
        with driver_errors():
            return self.database[collection].count_documents(where)

    def _note(self, kind: str, documents: int) -> int:
        self.written[kind] = self.written.get(kind, 0) + documents
        return documents

    def _show(self, command: Mapping[str, Any], documents: int) -> int:
        text = json_util.dumps(command, json_options=json_util.CANONICAL_JSON_OPTIONS)
        self.report(f"{text} ({documents} documents)")
        return documents


def atomic(ctx: "Context", what: str, function: "Transact") -> None:
    """Run *function* in one transaction."""
    step = ctx.begin(Kind.ATOMIC, what, function=function)
    if step is None:
        return
    ctx.report(what)
    database = ctx.databases.app
    if ctx.is_dry_run:
        function(Transaction(database=database, session=None, report=ctx.report))
        return

    def effect(session: Session) -> Mapping[str, Detail]:
        transaction = Transaction(database=database, session=session, report=ctx.report)
        function(transaction)
        return dict(transaction.written)

    ctx.finish(step, {"op": "atomic"}, effect)
