"""Carry out the steps of an erasure, batch by batch.

Each batch is one transaction with its audit entry and its checkpoint, and its effect can be repeated, so a successor
simply starts over: what is gone is not found again.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from compliance.audit.entry import Detail
from compliance.datamap.rule import Delete
from compliance.erasure.copies import forget
from compliance.erasure.holds import Holds
from compliance.erasure.plan import Step, update_for
from compliance.erasure.progress import Erasure
from compliance.errors import ErasureIncomplete
from compliance.jobs.run import Outcome
from compliance.mongo import Session

IDLE_BATCHES = 10  # batches in a row that changed nothing, before we say that an action does not take


def carry_out(erasure: Erasure, step: Step, *, number: int, total: int) -> None:
    """Carry out *step*, the one with this *number* of so many, until it finds no document any more.

    Raises:
        ErasureIncomplete: When its action does not change the documents that it finds.
        LegalHoldActive: When a hold was placed meanwhile.
    """
    idle = 0
    while ids := erasure.locator.batch(step, erasure.batch_docs):
        changed = _batch(erasure, step, ids, {"step": number + 1, "steps": total, "collection": step.collection})
        idle = 0 if changed else idle + 1
        if idle >= IDLE_BATCHES:
            raise ErasureIncomplete(f"{step.verb} on {step.collection} matches documents that it does not change")


def _batch(erasure: Erasure, step: Step, ids: list[Any], progress: Mapping[str, Any]) -> int:
    locator = erasure.locator
    referenced = locator.referenced(step)
    changed = 0

    def effect(session: Session) -> Outcome:
        nonlocal changed
        Holds(erasure.databases).check(*erasure.names, now=erasure.run.clock.now(), session=session)
        changed = _apply(erasure, step, ids, referenced, session)
        affected = Counter(erasure.affected.get(step.collection, {})) + Counter({step.verb: changed})
        after = erasure.checkpoint(**progress) | {"affected": {**erasure.affected, step.collection: dict(affected)}}
        details: dict[str, Detail] = {"collection": step.collection, "verb": step.verb, "documents": changed}
        return Outcome(entries=(erasure.entry("erasure.batch", details),), checkpoint=after)

    outcome = erasure.commit(effect)
    erasure.affected = dict((outcome.checkpoint or {})["affected"])
    return changed


def _apply(erasure: Erasure, step: Step, ids: list[Any], referenced: list[Any], session: Session) -> int:
    """Change the documents *ids* that still belong to the person, by ``_id``; a personal key stays out of the query."""
    collection = erasure.databases.app[step.collection]
    forget(erasure.databases.app, step.collection, ids, session=session)
    mine: dict[str, Any] = {"_id": {"$in": ids}}
    query = None if step.is_scan else erasure.locator.query(step)
    guarded = {"$and": [mine, query]} if query else mine
    if isinstance(step.action, Delete):
        return collection.delete_many(guarded, session=session).deleted_count
    update = update_for(step.action, step, erasure.identity, referenced)
    return collection.update_many(guarded, update, session=session).modified_count
