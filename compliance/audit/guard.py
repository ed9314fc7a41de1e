"""The high-water mark: the last checkpoints that were signed, in a file outside the database.

After a backup was restored, the sealer would go on from an old state and sign a second history. The file stops it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compliance.audit.wire import decode_hash, encode_base64
from compliance.errors import ConfigurationError, MalformedProof


@dataclass(frozen=True, slots=True)
class Mark:
    """The size of a log that was signed last, and its root hash."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Guard:
    """The file with the marks; without a *path* nothing is remembered."""

    path: Path | None

    def marks(self) -> dict[str, Mark]:
        """Return the mark of every log.

        Raises:
            ConfigurationError: When the file cannot be read; it is never replaced then.
        """
        if self.path is None:
            return {}
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(log): _mark(values) for log, values in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MalformedProof):
            raise ConfigurationError(
                f"{self.path} cannot be read; it says how far the audit log was signed, so restore it"
            ) from None

    def keep(self, marks: Mapping[str, Mark]) -> None:
        """Raise the marks in the file; readers see the old one or the new one, and no mark ever goes down.

        Raises:
            ConfigurationError: When it cannot be written.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path.with_name(f".{self.path.name}.lock")):
                self._replace(self.path, _higher(self.marks(), marks))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written ({error.strerror})") from None

    @staticmethod
    def _replace(path: Path, marks: Mapping[str, Mark]) -> None:
        kept = {log: {"size": mark.size, "root": encode_base64(mark.root)} for log, mark in sorted(marks.items())}
        draft = path.with_name(f".{path.name}.new")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other sealers of this machine out for the block."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _higher(kept: Mapping[str, Mark], new: Mapping[str, Mark]) -> dict[str, Mark]:
    return {**kept, **{log: mark for log, mark in new.items() if log not in kept or mark.size >= kept[log].size}}


def _mark(values: Any) -> Mark:
    return Mark(int(values["size"]), decode_hash(values["root"], what="the root hash of a mark"))
