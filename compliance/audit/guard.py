"""The high-water mark: the last checkpoints that were signed, in a file outside the database.

After a backup was restored, the sealer would go on from an old state and sign a second history. The file stops it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compliance.audit.wire import decode_hash, encode_base64
from compliance.errors import MalformedProof
from compliance.statefile import StateFile


@dataclass(frozen=True, slots=True)
class Mark:
    """The size of a log that was signed last, and its root hash."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Guard:
    """The file with the marks; without a *path* nothing is remembered."""

    path: Path | None

    @property
    def file(self) -> StateFile:
        """The file."""
        return StateFile(self.path, "how far the audit log was signed")

    def marks(self) -> dict[str, Mark]:
        """Return the mark of every log.

        Raises:
            ConfigurationError: When the file cannot be read; it is never replaced then.
        """
        return self._decoded(self.file.read())

    def keep(self, marks: Mapping[str, Mark]) -> None:
        """Raise the marks in the file; no mark ever goes down.

        Raises:
            ConfigurationError: When it cannot be written.
        """
        self.file.change(lambda kept: _encoded(_higher(self._decoded(kept), marks)))

    def _decoded(self, kept: Mapping[str, Any]) -> dict[str, Mark]:
        try:
            return {log: _mark(values) for log, values in kept.items()}
        except (ValueError, KeyError, TypeError, MalformedProof):
            raise self.file.unreadable() from None


def _higher(kept: Mapping[str, Mark], new: Mapping[str, Mark]) -> dict[str, Mark]:
    return {**kept, **{log: mark for log, mark in new.items() if log not in kept or mark.size >= kept[log].size}}


def _encoded(marks: Mapping[str, Mark]) -> dict[str, Any]:
    return {log: {"size": mark.size, "root": encode_base64(mark.root)} for log, mark in sorted(marks.items())}


def _mark(values: Any) -> Mark:
    return Mark(int(values["size"]), decode_hash(values["root"], what="the root hash of a mark"))
