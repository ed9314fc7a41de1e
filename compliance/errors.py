"""Every error of the project; the class is the decision.

::

    ComplianceError
     ├ TransientError        RETRY    StoreUnavailable, LockHeld, LeaseLost, AnchorUnavailable, GateClosed,
     │                       RETRY    NotSealedYet, RecipientUnreachable, NotDue, HoldsChanged
     ├ RejectedError         REJECT   InvalidPayload, UnknownName, UnknownSubject, LegalHoldActive, RequestConflict,
     │                       REJECT   UntrustedSender
     ├ IntegrityError        HALT     ErasureIncomplete, RevisionEdited, ResumeTokenLost, ManifestMismatch,
     │                       HALT     AppliedStepEdited
     │   of the audit log    HALT     InvalidProof, MalformedProof, AuditTampered, LogForked, LogRolledBack,
     │   of the audit log    HALT     CheckpointRefused
     ├ MigrationError        HALT     IrreversibleMigration, StepFailed, DependencyRefused, RevisionMissing,
     │                       HALT     RevisionLate, RevisionDuplicate, FolderDiffers, GovernanceViolation,
     │                       HALT     PromotionRefused, ShapesDisagree, ScriptFailed
     ├ RecipientRefused      HALT     another system does not take what it is told
     ├ PlanOutdated          HALT     an erasure was planned with another data map
     ├ StepRefused           HALT     the server refused an operation for good
     ├ JobKillsWorkers       HALT     a job whose workers vanish
     ├ CertificateNotIssued  HALT     (asked for by a person: no job raises it)
     ├ CheckFailed           HALT     (reported, never raised: the job that looked is done)
     ├ DuplicateEntry        HALT     (a repeat that was expected is caught by its caller)
     └ ConfigurationError    HALT     (exit 78)

RETRY: the job goes back to the ledger with a jittered delay. REJECT: the reason is recorded and the message
acknowledged. HALT: the job is parked for a person. Messages hold ids, counts and field names, never personal data.
"""

from datetime import datetime
from enum import Enum, IntEnum
from typing import ClassVar


class Disposition(Enum):
    """What a worker does with a job that raised."""

    RETRY = "retry"
    REJECT = "reject"
    HALT = "halt"


class ExitCode(IntEnum):
    """Exit codes of every command (``sysexits.h`` from 64 on)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_AS_IT_SHOULD_BE = 3
    INTEGRITY = 4
    PARTIAL = 5
    UNAVAILABLE = 69
    TEMPORARY = 75
    CONFIGURATION = 78


class ComplianceError(Exception):
    """Base of all errors that this project raises on purpose; the message is fit for a user."""

    disposition: ClassVar[Disposition] = Disposition.HALT
    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED


class TransientError(ComplianceError):
    """May succeed later without anybody's help."""

    disposition = Disposition.RETRY
    exit_code = ExitCode.TEMPORARY


class StoreUnavailable(TransientError):
    """MongoDB or Redis does not answer."""

    exit_code = ExitCode.UNAVAILABLE


class LockHeld(TransientError):
    """Somebody else holds the lease or lock; the message says who."""


class LeaseLost(TransientError):
    """The fence moved on: another worker owns this job now, and nothing was committed."""


class GateClosed(TransientError):
    """A migration waits for a condition or for a person; the message says for which."""


class NotSealedYet(TransientError):
    """The audit log holds an entry, and nobody sealed or signed it until now."""


class NotDue(TransientError):
    """The work may not begin before a time.

    Attributes:
        until: When it is tried again.
    """

    def __init__(self, message: str, until: datetime) -> None:
        super().__init__(message)
        self.until = until


class HoldsChanged(TransientError):
    """A legal hold was placed or ended while an erasure ran; it is planned anew."""


class AnchorUnavailable(TransientError):
    """A place outside the database did not take a checkpoint of the log."""

    exit_code = ExitCode.UNAVAILABLE


class RecipientUnreachable(TransientError):
    """Another system cannot be told of an erasure now."""

    exit_code = ExitCode.UNAVAILABLE


class RejectedError(ComplianceError):
    """Can never succeed as it was asked for."""

    disposition = Disposition.REJECT
    exit_code = ExitCode.USAGE


class InvalidPayload(RejectedError):
    """The request does not have the documented shape."""


class UnknownName(RejectedError):
    """No such job kind, check, collection or migration; the message lists the known ones."""


class UnknownSubject(RejectedError):
    """No person with this id."""


class LegalHoldActive(RejectedError):
    """A legal hold forbids the erasure (GDPR Art. 17(3)(e))."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class RequestConflict(RejectedError):
    """The same request id came before with another payload."""


class UntrustedSender(RejectedError):
    """A message does not prove that its sender may ask for what it asks for."""


class IntegrityError(ComplianceError):
    """Something is not what it was promised to be."""

    exit_code = ExitCode.INTEGRITY


class ErasureIncomplete(IntegrityError):
    """An identifier of the subject is still there after the erasure."""


class RevisionEdited(IntegrityError):
    """A migration script differs from the one that was applied."""


class AppliedStepEdited(RevisionEdited):
    """A step that was carried out, or begun, before an interruption is not in the script as it was."""


class ResumeTokenLost(IntegrityError):
    """The oplog no longer reaches back to the last change event that was handled."""


class ManifestMismatch(IntegrityError):
    """An exported file is not the one its manifest describes."""


class InvalidProof(IntegrityError):
    """A signature or a proof of the sealed audit log does not show what it should."""


class MalformedProof(InvalidProof):
    """Bytes of the sealed audit log (tile, note, checkpoint, proof, receipt) are not of the form that is specified."""


class AuditTampered(IntegrityError):
    """Something was done to the audit database, or beside it, that no process of ours does."""


class LogForked(IntegrityError):
    """A place outside the database holds a checkpoint of the same log with other entries: history was rewritten."""


class LogRolledBack(IntegrityError):
    """A place outside the database holds a checkpoint of more entries than the log has: its end was cut off."""


class CheckpointRefused(IntegrityError):
    """A place outside the database does not take the key that signed a checkpoint."""


class MigrationError(ComplianceError):
    """A migration cannot be planned or applied."""


class IrreversibleMigration(MigrationError):
    """A script on the way down declares why it cannot be undone."""

    exit_code = ExitCode.USAGE


class DependencyRefused(MigrationError):
    """A script depends on one that is not there or not applied, or on itself by way of others."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class RevisionMissing(MigrationError):
    """A script that was applied is no longer in the folder."""

    exit_code = ExitCode.INTEGRITY


class RevisionLate(MigrationError):
    """A script is new, and one that depends on it was applied before."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class RevisionDuplicate(MigrationError):
    """Two scripts of one folder have the same number and phase."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class FolderDiffers(MigrationError):
    """A migrations folder is not what its ``migrations.sum`` says."""

    exit_code = ExitCode.INTEGRITY


class GovernanceViolation(MigrationError):
    """The rules of migrations refuse a script where the environment is production; nothing ran."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class PromotionRefused(MigrationError):
    """A script has not been applied and verified in staging, or the record that says so does not count; nothing ran."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class ShapesDisagree(MigrationError):
    """An online change cannot go on: its shapes disagree, or nobody keeps them in step; the message says what to do."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class StepFailed(MigrationError):
    """A step of a migration met data it cannot handle; nothing of that step is half done."""

    exit_code = ExitCode.PARTIAL


class RecipientRefused(ComplianceError):
    """Another system does not take what it is told of an erasure."""


class ScriptFailed(MigrationError):
    """The Python of a migration script raised an error of its own; the message names the line, and quotes no data."""

    exit_code = ExitCode.PARTIAL


class PlanOutdated(ComplianceError):
    """The data map changed between the plan of an erasure and its execution; the message says how to plan anew."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class StepRefused(ComplianceError):
    """The server refused an operation, and would again; the message holds its code, never its text."""


class JobKillsWorkers(ComplianceError):
    """A job whose workers vanish one after the other without committing anything."""


class CertificateNotIssued(ComplianceError):
    """There is nothing to certify; the message says what is missing."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class CheckFailed(ComplianceError):
    """A health check, or the verification of the audit log, found something that is not as it should be."""

    exit_code = ExitCode.NOT_AS_IT_SHOULD_BE


class DuplicateEntry(ComplianceError):
    """The same event was recorded before; treat its transaction as done."""


class ConfigurationError(ComplianceError):
    """The environment does not describe a system that can run."""

    exit_code = ExitCode.CONFIGURATION
