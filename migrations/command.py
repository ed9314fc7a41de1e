"""A command as the server gets it: built once, then sent by a run, or recorded by a dry run.

A run sends the very value that a dry run shows, so the two cannot differ. What the driver adds to it is the session,
the number of the transaction and the time of the cluster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, WriteConcernError, WriteError

from compliance.mongo import CODEC, DUPLICATE_KEY, Db, Document, Session

if TYPE_CHECKING:
    from migrations.hands import Hands, Update

MAJORITY = {"w": "majority"}
ID_INDEX = {"_id": 1}
LARGEST_MESSAGE = 32_000_000  # the server takes 48,000,000 bytes,
MOST_STATEMENTS = 50_000  # and 100,000 statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command that changes something.

    Attributes:
        body: What is sent; its first field is its name, with the collection as value.
        database: ``admin`` or ``compliance``; empty for the application's.
        in_transaction: Whether it is sent in a transaction, which it shares with the fence, the audit entry and the
            checkpoint.
        is_masked: Whether values of documents were replaced by their types, so that this can be shown.
    """

    body: Document
    database: str = ""
    in_transaction: bool = False
    is_masked: bool = False

    @property
    def name(self) -> str:
        """Such as ``collMod``."""
        return next(iter(self.body))

    @property
    def collection(self) -> str:
        """What it is about."""
        return str(self.body[self.name])

    def masked(self, body: Document) -> "Command":
        """Return this command to be shown with *body*, in which values of documents are hidden."""
        return replace(self, body=body, is_masked=True)


def alteration(name: str, collection: str, *, database: str = "", **arguments: Any) -> Command:
    """Return a command that changes a collection or its indexes, at majority."""
    return Command(body={name: collection, **arguments, "writeConcern": MAJORITY}, database=database)


def update_many(collection: str, where: Document, update: "Update", *, hint: Document | None = None) -> Command:
    """Return the command that updates every document that matches *where*, in a transaction."""
    hinted = {} if hint is None else {"hint": hint}
    return _write("update", collection, updates=[{"q": where, "u": update, "multi": True, **hinted}])


def set_each(collection: str, values: Iterable[tuple[Any, Mapping[str, Any]]]) -> list[Command]:
    """Return the commands that set fields of single documents, by ``_id``, in a transaction."""
    return update_each(collection, ((id_, {"$set": dict(fields)}) for id_, fields in values))


def update_each(collection: str, updates: Iterable[tuple[Any, Document]]) -> list[Command]:
    """Return the commands that update single documents, by ``_id``, in a transaction."""
    statements: Iterable[Document] = ({"q": {"_id": id_}, "u": update} for id_, update in updates)
    return [_write("update", collection, updates=part) for part in _parts(statements)]


def insert_each(
    collection: str, documents: Iterable[Mapping[str, Any]], *, bypass: bool = False, database: str = ""
) -> list[Command]:
    """Return the commands that insert *documents*, in a transaction; the server makes an ``_id`` that is missing.

    Raw documents are sent byte by byte as they are.
    """
    bypassing = {"bypassDocumentValidation": True} if bypass else {}
    parts = _parts(one if isinstance(one, RawBSONDocument) else dict(one) for one in documents)
    return [replace(_write("insert", collection, **bypassing, documents=part), database=database) for part in parts]


def delete_many(collection: str, where: Document) -> Command:
    """Return the command that removes every document that matches *where*, in a transaction."""
    return _write("delete", collection, deletes=[{"q": where, "limit": 0}])


def _parts(documents: Iterable[Any]) -> list[list[Any]]:
    """Return *documents* in as few parts as the server takes in one message each."""
    parts: list[list[Any]] = []
    size = 0
    for document in documents:
        length = len(bson.encode(document, codec_options=CODEC))
        if not parts or size + length > LARGEST_MESSAGE or len(parts[-1]) == MOST_STATEMENTS:
            parts.append([])
            size = 0
        parts[-1].append(document)
        size += length
    return parts


def _write(name: str, collection: str, **arguments: Any) -> Command:
    return Command(body={name: collection, **arguments}, in_transaction=True)


def send(ctx: "Hands", command: Command, *, session: Session | None = None) -> Document:
    """Send *command* and return the answer.

    Raises:
        PyMongoError: Also where the server answers ``ok`` and refuses a document, or cannot vouch for a majority.
    """
    answer: Document = database_of(ctx, command).command(command.body, codec_options=CODEC, session=session)
    for refused in answer.get("writeErrors", ()):
        code, message = refused.get("code"), refused.get("errmsg", "")
        raise (DuplicateKeyError if code == DUPLICATE_KEY else WriteError)(message, code, refused)
    if "writeConcernError" in answer:
        doubt = answer["writeConcernError"]
        raise WriteConcernError(doubt.get("errmsg", ""), doubt.get("code"), answer)
    return answer


def carry_out(ctx: "Hands", command: Command) -> None:
    """Send *command*; in a dry run record it."""
    if ctx.is_dry_run:
        ctx.sketch.add(command)
    else:
        send(ctx, command)


def database_of(ctx: "Hands", command: Command) -> Db:
    """Return where *command* is sent."""
    if command.database == "admin":
        return ctx.databases.client.get_database("admin")
    return ctx.databases.compliance if command.database == "compliance" else ctx.databases.app
