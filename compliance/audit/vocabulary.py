"""The closed vocabulary of the audit log: every ``action`` there is, and when it is recorded.

A kind of work of another organisation adds its own with ``ACTIONS.add``.
"""

from compliance.registry import Registry

ACTIONS: Registry[str] = Registry("audit action")

_OURS = {
    "erasure.requested": "a request was recorded",
    "erasure.accepted": "the person is known and no hold forbids it",
    "erasure.rejected": "a legal hold forbids it",
    "erasure.planned": "the plan is made; with `dry_run` this is the end",
    "erasure.grace": "the time begins in which the request can be taken back and nothing was touched",
    "erasure.replanned": "a new plan is made: data was found again, an error ended the attempt, or a person asked",
    "erasure.started": "a worker begins, or begins again",
    "erasure.batch": "documents of one collection were changed",
    "erasure.verifying": "everything of the plan is done; the second look begins",
    "erasure.residual_found": "the second look found an identifier; the job is parked",
    "erasure.failed": "an error ended an erasure that had begun; the job is parked",
    "erasure.verified": "the second look found nothing",
    "erasure.completed": "the erasure is done",
    "erasure.withdrawn": "the request was taken back; with the documents that were changed before",
    "erasure.extended": "the answer may come later, by up to two months, for a reason the law knows (GDPR Art. 12(3))",
    "recipient.told": "another system took the message that somebody was erased",
    "recipient.acknowledged": "another system has erased the person, too",
    "hold.placed": "a legal hold was placed",
    "hold.released": "a legal hold was released",
    "consent.granted": "a person agreed",
    "consent.withdrawn": "a person no longer agrees",
    "export.started": "files are being written",
    "export.completed": "a package is complete, with the hashes of its files",
    "import.started": "every line was looked at; writing begins",
    "import.batch": "documents were inserted",
    "import.completed": "the import is done",
    "migration.started": "a revision begins",
    "migration.step": "one step of it is committed",
    "migration.applied": "a revision is applied",
    "migration.dual": "an online change is expanded: both shapes are there, and are kept in step",
    "migration.completing": "the old shape of an online change is being removed; there is no way back from here",
    "migration.reconciled": "documents of an online change were written, so that both shapes agree; with their number",
    "migration.history_lost": "changes of an online change were not seen; documents with one shape get the other",
    "migration.settled": "a person said which shape counts where nobody knows which was written last",
    "migration.reverting": "the way back of a revision begins",
    "migration.reverted": "a revision is undone",
    "migration.repaired": "a person accepted that an applied script was edited, or is missing",
    "migration.approved": "a person opened a gate for the script that waits at it",
    "migration.throttled": "a person changed how fast migrations may go",
    "migration.allowed_late": "a person let a script run after one that depends on it",
    "migration.rehearsed": "pending scripts were tried on a copy of the database, which was dropped; with the result",
    "migration.lint_allowed": "comments of a script that begins allow what rules forbid; with codes and reasons",
    "migration.attested": "a record was made of what is applied and verified here, for another environment to believe",
    "migration.promoted": "a record of staging lets a script run here",
    "migration.emergency": "a person lets a script run here that no record of staging allows, with the reason",
    "campaign.started": "the requests of a campaign are recorded",
    "health.checked": "checks ran",
    "audit.verified": "the log was verified",
    "audit.heartbeat": "nothing happened but time: an hour without one is an hour in which nothing could be recorded",
    "log.closed": "the log of a past year takes no more entries; its last size and root hash are those in the details",
    "log.pruned": "entries of a log that are old, and in an exported folder, were removed; the rest begins at `below`",
    "jobs.purged": "finished jobs whose retention period was over were removed, with counts by kind",
    "job.rejected": "a request was refused for good",
    "message.refused": "a message was wrong, or its request id was used before; no job came of it",
    "schedule.refused": "a due slot became no job, for its request was refused; the next slot is asked for again",
    "job.parked": "a job waits for a person",
    "job.retried": "a person queued a parked job again",
    "job.cancel_requested": "a person asked a running job to end; it does at its next batch",
    "job.park_requested": "a person asked a running job to pause; it does at its next batch",
    "job.cancelled": "a job was ended by a person; what it had committed stays",
}

for _action, _meaning in _OURS.items():
    ACTIONS.add(_action, _meaning)
