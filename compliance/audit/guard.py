"""The high-water mark: the last checkpoints that were signed, in a file outside the database.

After a backup was restored, the sealer would go on from an old state and sign a second history. The file stops it.
"""

import json
import os
from collections.abc import Mapping
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
        """Replace the file at once; readers see the old one or the new one.

        Raises:
            ConfigurationError: When it cannot be written.
        """
        if self.path is None:
            return
        kept = {log: {"size": mark.size, "root": encode_base64(mark.root)} for log, mark in sorted(marks.items())}
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written ({error.strerror})") from None


def _mark(values: Any) -> Mark:
    return Mark(int(values["size"]), decode_hash(values["root"], what="the root hash of a mark"))
