"""Removal of jobs that ended long ago, in batches: each one transaction with its audit entry.

A job that is removed no longer stops a second one under the same request id, so the retention period is also how long a
repeated message is known to be one.
"""

from collections import Counter
from datetime import timedelta

from pymongo import ASCENDING

from compliance.audit.entry import Detail, Entry
from compliance.audit.leaf import EPOCH
from compliance.jobs.job import State
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document, Session

ENDED = (State.DONE, State.REJECTED, State.CANCELLED)  # parked waits for a person


def purge_jobs(run: Run, *, older_than: timedelta, batch_docs: int, actor: str) -> None:
    """Remove the jobs that ended more than *older_than* ago, and end the job of *run*.

    Args:
        run: The job that does it; a successor goes on where its last batch stood.
        older_than: By the clock of the server; whole days.
        batch_docs: How many to remove in one transaction.
        actor: For the audit entries.
    """
    jobs = run.ledger.jobs
    before = run.ledger.databases.server_time() - older_than
    old: Document = {
        "_id": {"$ne": run.job.request_id},
        "state": {"$in": [state.value for state in ENDED]},
        "finished_at": {"$gt": EPOCH, "$lt": before},  # from EPOCH on, as the partial index is
    }
    done = int(run.job.checkpoint.get("batches", 0)), int(run.job.checkpoint.get("jobs", 0))

    def effect(session: Session) -> Outcome:
        batches, total = done
        chosen = jobs.find(old, {"kind": True}, session=session).sort("finished_at", ASCENDING).limit(batch_docs)
        kinds = {job["_id"]: job["kind"] for job in chosen}
        if not kinds:
            return Outcome(result={"jobs": total, "batches": batches})
        removed = jobs.delete_many(old | {"_id": {"$in": list(kinds)}}, session=session).deleted_count
        details: dict[str, Detail] = {
            "jobs": removed,
            "kinds": dict(sorted(Counter(kinds.values()).items())),
            "older_than_days": older_than.days,
        }
        entry = Entry(
            event=f"{run.job.request_id}#{batches}",
            entity_type="database",
            entity_id=run.ledger.databases.compliance.name,
            action="jobs.purged",
            created_at=run.clock.now(),
            performed_by=actor,
            request_id=run.job.request_id,
            details=details,
        )
        return Outcome(entries=(entry,), checkpoint={"batches": batches + 1, "jobs": total + removed})

    while True:
        outcome = run.commit(effect)
        if outcome.checkpoint is None:
            return
        done = int(outcome.checkpoint["batches"]), int(outcome.checkpoint["jobs"])
