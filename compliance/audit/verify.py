"""Verify the log: every entry still has the bytes that were hashed when it was written.

Finds changes by anyone who did not recompute the hash; signed checkpoints against a forger are described as future
work in ``docs/architecture.md``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compliance.audit.entry import leaf_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a verification: how many entries were read, and what is wrong with which."""

    entries: int
    findings: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(documents: Iterable[Mapping[str, Any]]) -> Report:
    """Recompute the hash of each of *documents*; memory does not grow with their number."""
    entries = 0
    findings: list[str] = []
    for document in documents:
        entries += 1
        finding = _check(document)
        if finding is not None and len(findings) < 1000:  # noqa: PLR2004 - a broken log is broken, memory is bounded
            findings.append(finding)
    return Report(entries=entries, findings=tuple(findings))


def _check(document: Mapping[str, Any]) -> str | None:
    try:
        recomputed = leaf_hash(document)
    except TypeError:
        return f"MODIFIED {document['_id']}: holds a value that no entry can hold"
    if recomputed != document.get("h"):
        return f"MODIFIED {document['_id']}: its bytes are not those that were recorded"
    return None
