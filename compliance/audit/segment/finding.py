"""What can be wrong with a segment: values, for damage is a result and no failure of the verification."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is wrong."""

    BAD_CHECKPOINT = "BAD-CHECKPOINT"
    BAD_SIGNATURE = "BAD-SIGNATURE"
    WRONG_ROOT = "WRONG-ROOT"
    WRONG_TILE = "WRONG-TILE"
    WRONG_BUNDLE = "WRONG-BUNDLE"
    MODIFIED_ENTRY = "MODIFIED-ENTRY"
    MISSING_FILE = "MISSING-FILE"
    SUPERFLUOUS_FILE = "SUPERFLUOUS-FILE"
    UNPROVEN = "UNPROVEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: The file, below the folder of the segment.
        index: The entry, or the first one of several; None where it is about no entry.
    """

    fault: Fault
    path: str
    why: str
    index: int | None = None

    def __str__(self) -> str:
        entry = "" if self.index is None else f" entry {self.index}"
        return f"{self.fault}{entry} {self.path}: {self.why}"
