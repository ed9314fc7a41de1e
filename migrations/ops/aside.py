"""Documents that a step could not change: set aside with the reason, counted, and tried again when a person says so.

Document shape (``set_aside``)::

    {_id: ObjectId, revision: str, step: int, digest: str, collection: str, document_id: any, code: int | null,
     reason: str, at: date, settled_at: date}

``code`` is the server's, null where the script gave the reason; ``settled_at`` is there once a later try went well.
Values of the document are never kept.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SET_ASIDE = "set_aside"
UNSETTLED = {"settled_at": {"$exists": False}}


def describe(ctx: "Hands", step: Step, collection: str, id_: Any, *, code: int | None, reason: str) -> Document:
    """Return what is kept of the document *id_* of *collection*."""
    return {
        "revision": ctx.revision,
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
    """Return the ids that *step* set aside and that nobody has settled."""
    query = {"revision": ctx.revision, "step": step.number, "digest": step.digest, **UNSETTLED}
    with driver_errors():
        return [found["document_id"] for found in ctx.databases.compliance[SET_ASIDE].find(query, {"document_id": 1})]


def settle(ctx: "Hands", step: Step, id_: Any, *, session: Session) -> None:
    """Note in the transaction of *session* that *id_* was changed after all."""
    query = {"revision": ctx.revision, "step": step.number, "document_id": id_, **UNSETTLED}
    settled = {"$set": {"settled_at": ctx.now()}}
    ctx.databases.compliance[SET_ASIDE].update_many(query, settled, session=session)


def count_unsettled(databases: Databases, revisions: Collection[str]) -> int:
    """Return how many documents *revisions* set aside and nobody has settled."""
    with driver_errors():
        return databases.compliance[SET_ASIDE].count_documents({"revision": {"$in": list(revisions)}, **UNSETTLED})
