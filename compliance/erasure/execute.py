"""Carry out the steps of an erasure, batch by batch.

Each batch is one transaction with its audit entry and its checkpoint, and its effect can be repeated, so a successor
simply starts over: what is gone is not found again. What refers to the documents of a batch goes right before them,
also what was written meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from compliance.audit.entry import Detail
from compliance.datamap.collection import Kind
from compliance.datamap.rule import Edge, Keep
from compliance.erasure.effects import Batch
from compliance.erasure.holds import Holds
from compliance.erasure.locate import Locator, Page
from compliance.erasure.plan import Step
from compliance.erasure.progress import Erasure
from compliance.erasure.series import carry_out_series
from compliance.errors import ErasureIncomplete
from compliance.jobs.run import Outcome
from compliance.mongo import Session

IDLE_BATCHES = 10  # batches in a row that changed nothing, before we say that an action does not take


def carry_out(erasure: Erasure, step: Step, *, number: int, total: int) -> None:
    """Carry out *step*, the one with this *number* of so many, until it finds no document any more.

    Raises:
        ErasureIncomplete: When its action does not change the documents that it finds.
        LegalHoldActive: When a hold on everything was placed meanwhile.
        HoldsChanged: When one on a part was.
    """
    if isinstance(step.action, Keep):
        return
    progress = {"step": number + 1, "steps": total, "collection": step.collection}
    if step.kind is Kind.TIME_SERIES:
        carry_out_series(erasure, step, progress)
        return
    work = _Work(erasure, progress)
    while work.passes(step):
        pass


@dataclass(slots=True)
class _Work:
    """Batches of one step, and of what turns up that refers to them."""

    erasure: Erasure
    progress: Mapping[str, Any]
    locator: Locator = field(init=False)
    idle: int = 0

    def passes(self, step: Step) -> bool:
        """Go once through the documents of *step*; False when there were none."""
        self.locator, found = self.erasure.locator, False
        for page, ids in self._batches(step):
            found = True
            self._change(step, ids, page)
        return found

    def _batches(self, step: Step) -> Iterable[tuple[Page, list[Any]]]:
        size = self.erasure.batch_docs
        if step.is_tree:
            yield from (((), ids) for ids in self.locator.reached(step).children(size))
            return
        for page in self.locator.pages(step):
            found = (document["_id"] for document in self.locator.found(step, page, {"_id": 1}))
            while ids := list(islice(found, size)):
                yield page, ids

    def _change(self, step: Step, ids: list[Any], page: Page) -> None:
        """Change *ids*, and before them what refers to them by now: afterwards nobody could tell whose it is."""
        for other in self.locator.steps:
            if _goes_with(other, step):
                while late := self.locator.late(other, ids, self.erasure.batch_docs):
                    self._change(other, late, ids)
        changed = self._batch(step, ids, page)
        self.idle = 0 if changed else self.idle + 1
        if self.idle >= IDLE_BATCHES:
            raise ErasureIncomplete(f"{step.verb} on {step.collection} matches documents that it does not change")

    def _batch(self, step: Step, ids: list[Any], page: Page) -> int:
        erasure, now = self.erasure, self.erasure.run.clock.now()
        batch = Batch(locator=self.locator, step=step, ids=ids, page=page, key=erasure.mask_key, now=now)
        changed: Counter[str] = Counter()

        def effect(session: Session) -> Outcome:
            nonlocal changed
            Holds(erasure.databases).check(*erasure.names, now=now, known=erasure.holds, session=session)
            changed = batch.apply(session)
            affected = Counter(erasure.affected.get(step.collection, {})) + changed
            after = {**erasure.affected, step.collection: dict(affected)}
            documents = changed.total()
            details: dict[str, Detail] = {"collection": step.collection, "verb": step.verb, "documents": documents}
            checkpoint = erasure.checkpoint(**self.progress) | {"affected": after}
            return Outcome(entries=(erasure.entry("erasure.batch", details),), checkpoint=checkpoint)

        outcome = erasure.commit(effect)
        erasure.affected = dict((outcome.checkpoint or {})["affected"])
        return changed.total()


def _goes_with(child: Step, parent: Step) -> bool:
    """Whether the documents of *child* must go before those of *parent* that they refer to."""
    return (
        child.of == parent.collection
        and parent.edge is Edge.DEEP
        and child.kind is not Kind.TIME_SERIES
        and not isinstance(child.action, Keep)
        and (parent.goes or child.kind is not Kind.GRIDFS)
    )
