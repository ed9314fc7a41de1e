"""What verification can find: values, for damage is a result and no failure of the verification."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MAX_FINDINGS = 1000  # a broken log is broken; memory is bounded


class Fault(StrEnum):
    """What is wrong; the meaning is for people."""

    MODIFIED = "MODIFIED"
    MISSING = "MISSING"
    UNSEALED = "UNSEALED"
    FORGED = "FORGED"
    REORDERED = "REORDERED"
    BACKDATED = "BACKDATED"
    TRUNCATED = "TRUNCATED"
    FORK = "FORK"
    STREAM_GAP = "STREAM-GAP"
    STALE = "STALE"
    SCHEMA_DRIFT = "SCHEMA-DRIFT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        what: The entry, batch, checkpoint, stream or collection.
    """

    fault: Fault
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.fault} {self.what}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a verification.

    Attributes:
        entries: How many entries were read and recomputed.
        pending: How many were written too lately to be sealed already.
        checkpoints: The last checkpoint of each log that verified, for the next time.
        pruned: The logs of which entries are gone, and the index below which entries of ours say so.
    """

    entries: int
    pending: int
    findings: tuple[Finding, ...]
    checkpoints: tuple[bytes, ...]
    pruned: tuple[tuple[str, int], ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@dataclass(slots=True)
class Findings:
    """The findings so far, each once."""

    _found: dict[Finding, None] = field(default_factory=dict)

    def add(self, fault: Fault, what: str, why: str) -> None:
        """Add one, while there are not too many already."""
        if len(self._found) < MAX_FINDINGS:
            self._found.setdefault(Finding(fault, what, why))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)
