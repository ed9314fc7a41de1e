"""One attempt at a job: fenced transactions and a heartbeat that keeps the lease."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.clock import Clock
from compliance.errors import ComplianceError, LeaseLost, StepRefused
from compliance.jobs.document import succeeded
from compliance.jobs.job import Ask, Job
from compliance.jobs.ledger import Claim, Ledger
from compliance.mongo import Document, Session

Effect = Callable[[Session], "Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one transaction leaves behind beside its effect.

    Attributes:
        entries: Audit entries of the effect.
        checkpoint: Where a successor goes on; None leaves it as it is.
        result: The result of the whole job; given by its last transaction only, which ends the job.
    """

    entries: tuple[Entry, ...] = ()
    checkpoint: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None


class Stopped(LeaseLost):
    """The worker is shutting down, or the time of the attempt is over: the job goes on from its checkpoint."""


class Interrupted(LeaseLost):
    """A person asked the job to end; it does so between two batches."""

    def __init__(self, request_id: str, ask: Ask) -> None:
        super().__init__(f"job {request_id} was asked to {ask.value}")
        self.ask = ask


@dataclass(slots=True, kw_only=True)
class Run:
    """The hands of a job function: everything it does to MongoDB goes through ``commit``.

    Attributes:
        claim: The job, and the lease under which it is held.
        unrecorded: The job as it will be stored, where its first and only transaction records it, too; then there is
            no lease to hold.
        should_stop: Whether this worker is shutting down.
        is_late: Whether the time of one attempt is nearly over; asked once something of it is committed.
        on_progress: Told the checkpoint of every commit.
        interruption: Why the work should end, as far as the heartbeat has heard.
    """

    claim: Claim
    ledger: Ledger
    log: AuditLog
    clock: Clock
    unrecorded: Document | None = None
    should_stop: Callable[[], bool] = lambda: False
    is_late: Callable[[], bool] = lambda: False
    on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None
    interruption: LeaseLost | None = field(default=None, init=False)
    commits: int = field(default=0, init=False)

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self.claim.job

    def check(self) -> None:
        """Return if the work should go on: for work between two commits that takes long.

        Raises:
            LeaseLost: When another worker has the job, this worker is stopping, the time of one attempt is nearly over,
                or a person asked it to end.
        """
        if self.should_stop():
            raise Stopped(f"job {self.job.request_id} goes on elsewhere: this worker is stopping")
        if self.commits and self.is_late():
            raise Stopped(f"job {self.job.request_id} goes on elsewhere: the time of one attempt is over")
        if self.interruption is not None:
            raise self.interruption

    def commit(self, effect: Effect) -> Outcome:
        """Run *effect* in one transaction with its audit entries, the checkpoint and the comparison of the fence.

        *effect* may run several times, and must have no effect outside the transaction.

        Raises:
            LeaseLost: When another worker has the job, this worker is stopping, or a person asked it to end; nothing
                was committed.
        """
        self.check()

        def transaction(session: Session) -> Outcome:
            if self.unrecorded is not None:
                self.ledger.insert(self.unrecorded, session=session)
            outcome = effect(session)
            self.ledger.advance(self.claim, self._changes(outcome), session=session)
            for entry in outcome.entries:
                self.log.append(entry, session=session)
            return outcome

        try:
            outcome = self.ledger.databases.transact(transaction)
        except (LeaseLost, StepRefused) as error:
            raise self._explain(error) from None
        self.commits += 1
        if outcome.checkpoint is not None:
            self.on_progress(outcome.checkpoint)
        return outcome

    def beat(self, lease: timedelta) -> bool:
        """Renew the lease; False when there is nothing left to renew."""
        try:
            ask = self.ledger.renew(self.claim, lease=lease)
        except LeaseLost as error:
            self.interruption = error
            return False
        if ask is not None:
            self.interruption = Interrupted(self.job.request_id, ask)
        return True

    def _explain(self, error: LeaseLost | StepRefused) -> ComplianceError:
        """Return what *error* means: who was overtaken can meet what the successor wrote before it meets the fence."""
        if isinstance(error, LeaseLost):
            ask = self.ledger.asked(self.claim)
            return error if ask is None else Interrupted(self.job.request_id, ask)
        if self.unrecorded is not None or self.ledger.holds(self.claim):
            return error
        return LeaseLost(f"job {self.job.request_id} was taken over; nothing was committed")

    def _changes(self, outcome: Outcome) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if outcome.checkpoint is not None:
            changes["checkpoint"] = dict(outcome.checkpoint)
        if outcome.result is not None:
            changes |= succeeded(outcome.result, now=self.clock.now())
        return changes


@contextmanager
def heartbeat(run: Run, *, lease: timedelta) -> Iterator[None]:
    """Renew the lease of *run* three times per *lease* until the block ends.

    A renewal that fails only means that the next transaction will find the fence moved on.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(lease.total_seconds() / 3):
            try:
                if not run.beat(lease):
                    return
            except ComplianceError:
                continue

    # In a copy of our context, so that its log lines name the job, too.
    thread = threading.Thread(target=copy_context().run, args=(beat,), name=f"lease-{run.job.request_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
