"""A few writes in one transaction, which also marks the step as done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compliance.audit.entry import Detail
from compliance.mongo import Document, Session, driver_errors
from migrations.command import Command, delete_many, insert_each, send, update_many
from migrations.ops.estimate import count_within
from migrations.sketch import masked
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands, Transact, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What the function of an atomic step works with.

    Attributes:
        session: None in a dry run, which records what it would write.
        written: How many documents each kind of write changed so far.
        seen: The collections of which the function has documents: what it writes may hold values of theirs.
    """

    ctx: "Hands"
    session: Session | None
    written: dict[str, int] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def find(self, collection: str, where: Document, fields: tuple[str, ...] = ()) -> list[Document]:
        """Return the documents that match *where*, with these *fields* or all; they are held in memory."""
        self.seen.append(collection)
        documents = self.ctx.databases.app[collection]
        with driver_errors(self.session):
            return list(documents.find(where, dict.fromkeys(fields, 1) or None, session=self.session))

    def insert(self, collection: str, *documents: Document) -> int:
        """Insert *documents* and return how many."""
        for command in insert_each(collection, documents):
            self._write(command)
        return self._note("inserted", len(documents))

    def update(self, collection: str, where: Document, update: "Update") -> int:
        """Update every document that matches *where* and return how many were changed."""
        answer = self._write(update_many(collection, where, update))
        return self._note("updated", self._count(collection, where) if answer is None else answer["nModified"])

    def delete(self, collection: str, where: Document) -> int:
        """Delete every document that matches *where* and return how many."""
        answer = self._write(delete_many(collection, where))
        return self._note("deleted", self._count(collection, where) if answer is None else answer["n"])

    def _count(self, collection: str, where: Document) -> int:
        return count_within(self.ctx, collection, where)[0]

    def _write(self, command: Command) -> Document | None:
        """Send *command*, or record it in a dry run, as far as it can hold nothing of documents."""
        if self.session is not None:
            return send(self.ctx, command, session=self.session)
        shown = command.masked(_hidden(command.body)) if self.seen else command
        self.ctx.sketch.add(shown)
        return None

    def _note(self, kind: str, documents: int) -> int:
        self.written[kind] = self.written.get(kind, 0) + documents
        return documents


def _hidden(body: Document) -> Document:
    """Return the body of a write with the types of all values that can come from documents."""
    return {
        name: value if isinstance(value, str) else [_hidden_statement(name, one) for one in value]
        for name, value in body.items()
    }


def _hidden_statement(kind: str, statement: Document) -> Any:
    if kind == "documents":
        return masked(statement)
    return {name: masked(value) if name in ("q", "u") else value for name, value in statement.items()}


def atomic(ctx: "Hands", what: str, function: "Transact") -> None:
    """Run *function* in one transaction."""
    step = ctx.begin(Kind.ATOMIC, what, function=function)
    if step is None:
        return
    ctx.report(what)
    if ctx.is_dry_run:
        _sketch(ctx, function)
        return

    def effect(session: Session) -> Mapping[str, Detail]:
        transaction = Transaction(ctx=ctx, session=session)
        function(transaction)
        return dict(transaction.written)

    ctx.finish(step, {"op": "atomic"}, effect)


def _sketch(ctx: "Hands", function: "Transact") -> None:
    """Let *function* read what is there, and record what it would write."""
    transaction = Transaction(ctx=ctx, session=None)
    function(transaction)
    for kind, documents in transaction.written.items():
        ctx.report(f"{documents} documents {kind}")
    if transaction.seen:
        seen = ", ".join(dict.fromkeys(transaction.seen))
        ctx.sketch.step.opaque = f"a function has read {seen}: types are shown for the values that it writes then"
