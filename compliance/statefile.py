"""A small JSON file of a process, outside the database: what is remembered there, nobody changes with the database.

Shape: one object, in relaxed Extended JSON.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bson import json_util
from bson.errors import BSONError

from compliance.errors import ConfigurationError, InvalidPayload

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StateFile:
    """The file at *path*; without one nothing is remembered.

    Attributes:
        says: What its content says, for an error.
    """

    path: Path | None
    says: str

    def read(self) -> dict[str, Any]:
        """Return the content; nothing where there is no file yet.

        Raises:
            ConfigurationError: When the file cannot be read; it is never replaced then.
        """
        if self.path is None:
            return {}
        try:
            found = json_util.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, BSONError):
            raise self.unreadable() from None
        if not isinstance(found, dict):
            raise self.unreadable()
        return found

    def change(self, how: Callable[[dict[str, Any]], Content]) -> None:
        """Replace the content by what *how* makes of it; readers see the old one or the new one, whatever happens.

        Raises:
            ConfigurationError: When the file cannot be read or written.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path.with_name(f".{self.path.name}.lock")):
                content = how(self.read())
                text = json_util.dumps(content, json_options=json_util.RELAXED_JSON_OPTIONS)
                replace_file(self.path, text.encode())
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written ({error.strerror})") from None

    def unreadable(self) -> ConfigurationError:
        """Return the error of a content that makes no sense."""
        return ConfigurationError(f"{self.path} cannot be read; it says {self.says}, so restore it")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out for the block."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_file(path: Path) -> bytes:
    """Return what the file at *path* holds, which a person named.

    Raises:
        InvalidPayload: When it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidPayload(f"{path} cannot be read ({error.strerror})") from None


def replace_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace *path* at once: readers see the old bytes or the new, never a part.

    Args:
        path: The file; it need not be there.
        data: What it is to hold.
        mode: Who may use it, less what the process takes off.

    Raises:
        OSError: When it cannot be written; then it is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
