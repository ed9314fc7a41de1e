"""Documents that a step could not change: set aside with the reason, counted, and tried again when a person says so.

Document shape (``set_aside``)::

    {_id: ObjectId, revision: str, passage: ObjectId | null, step: int, digest: str, collection: str, document_id: any,
     code: int | null, reason: str, at: date, settled_at: date, settled_because: str}

``passage`` names the event of the history with which the script began; ``step`` is 0 where whoever keeps two shapes in
step set it aside. ``code`` is the server's, null where the script gave the reason. The last two are there once nobody
has to look at it any more; see ``Because``. Values of the document are never kept.
"""

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SET_ASIDE = "set_aside"
UNSETTLED = {"settled_at": {"$exists": False}}
FOLLOWED = 0  # the number of no step: a document that was set aside while its shapes were kept in step


class Because(StrEnum):
    """Why a document that was set aside needs nobody any more."""

    RETRIED = "retried"
    WRITTEN = "written"
    COMPLETED = "completed"
    REVERTED = "reverted"
    BEGUN_AGAIN = "begun again"


def describe(ctx: "Hands", step: Step, collection: str, id_: Any, *, code: int | None, reason: str) -> Document:
    """Return what is kept of the document *id_* of *collection*."""
    return {
        "revision": ctx.revision,
        "passage": ctx.journal.passage if ctx.journal is not None else None,
        "step": step.number,
        "digest": step.digest,
        "collection": collection,
        "document_id": id_,
        "code": code,
        "reason": reason,
        "at": ctx.now(),
    }


def add(ctx: "Hands", refused: Collection[Document], *, session: Session) -> None:
    """Set documents aside in the transaction of *session*."""
    if refused:
        ctx.databases.compliance[SET_ASIDE].insert_many(refused, session=session)


def ids_of(ctx: "Hands", step: Step) -> list[Any]:
    """Return the ids that *step* set aside, in this passage through the script, and that nobody has settled."""
    query = {"revision": ctx.revision, "step": step.number, "digest": step.digest, **UNSETTLED}
    if ctx.journal is not None:
        query["passage"] = ctx.journal.passage
    with driver_errors():
        return [found["document_id"] for found in ctx.databases.compliance[SET_ASIDE].find(query, {"document_id": 1})]


def settle(ctx: "Hands", step: Step, id_: Any, *, session: Session) -> None:
    """Note in the transaction of *session* that *id_* was changed after all."""
    query = {"revision": ctx.revision, "step": step.number, "document_id": id_, **UNSETTLED}
    ctx.databases.compliance[SET_ASIDE].update_many(query, _settled(Because.RETRIED, ctx.now()), session=session)


def settle_all(
    databases: Databases,
    revision: str,
    because: Because,
    *,
    at: datetime,
    session: Session,
    but: ObjectId | None = None,
) -> None:
    """Note in the transaction of *session* that what *revision* set aside needs nobody, but for one passage."""
    others = {"passage": {"$ne": but}} if but is not None else {}
    query = {"revision": revision, **others, **UNSETTLED}
    databases.compliance[SET_ASIDE].update_many(query, _settled(because, at), session=session)


def followed(databases: Databases, revision: str) -> list[Any]:
    """Return the ids that were set aside while *revision* was kept in step, and that nobody has settled."""
    with driver_errors():
        found = databases.compliance[SET_ASIDE].find({"revision": revision, "step": FOLLOWED, **UNSETTLED})
        return [one["document_id"] for one in found]


def add_followed(databases: Databases, described: Document, *, session: Session) -> None:
    """Set aside what *described* says in the transaction of *session*, unless it is already.

    An application that goes on writing a document does not make more of it.
    """
    aside = databases.compliance[SET_ASIDE]
    same = {"revision": described["revision"], "step": FOLLOWED, "document_id": {"$eq": described["document_id"]}}
    if aside.find_one({**same, **UNSETTLED}, {"_id": 1}, session=session) is None:
        aside.insert_one(described, session=session)


def settle_followed(
    databases: Databases, revision: str, ids: Collection[Any], *, at: datetime, session: Session
) -> None:
    """Note in the transaction of *session* that *ids* were written, and brought into step."""
    query = {"revision": revision, "step": FOLLOWED, "document_id": {"$in": list(ids)}, **UNSETTLED}
    databases.compliance[SET_ASIDE].update_many(query, _settled(Because.WRITTEN, at), session=session)


def _settled(because: Because, at: datetime) -> Document:
    return {"$set": {"settled_at": at, "settled_because": because.value}}


def count_unsettled(databases: Databases, revisions: Collection[str]) -> int:
    """Return how many documents *revisions* set aside and nobody has settled."""
    with driver_errors():
        return databases.compliance[SET_ASIDE].count_documents({"revision": {"$in": list(revisions)}, **UNSETTLED})
