"""A folder on another disk or machine: one file for each log, to which checkpoints are appended.

A file is a sequence of signed notes, each followed by an empty line. It is never written over, so the file system may
forbid that (``chattr +a``).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator

from compliance.audit.checkpoint import Checkpoint, Policy, open_checkpoint
from compliance.clock import Clock
from compliance.errors import AnchorUnavailable, InvalidProof, MalformedProof
from worker.anchors.anchor import KINDS, AnchorOptions, Head

SUFFIX = ".notes"
TAIL_BYTES = 256 * 1024
_END = b"\n\n"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("expected an absolute path")
    return path


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """Appends to the file of a log; a half-written note at its end, left by a crash, is passed over."""

    name: str
    folder: Path

    def push(self, head: Head) -> bytes:
        """Append *head* unless it is there already; see ``Anchor``."""
        path = self.folder / f"{quote(head.checkpoint.origin, safe='')}{SUFFIX}"
        try:
            with _open(path) as handle:
                self._append(handle, head)
            _sync(self.folder)
        except OSError as error:
            raise AnchorUnavailable(f"anchor {self.name} cannot be written ({type(error).__name__})") from None
        return b""

    def _append(self, handle: int, head: Head) -> None:
        size = os.fstat(handle).st_size
        tail = os.pread(handle, TAIL_BYTES, max(0, size - TAIL_BYTES))
        last = last_checkpoint(tail, head.policy)
        if last is not None:
            head.check_continues(last, name=self.name)
        if last == head.checkpoint:
            return
        data = (_END if tail and not tail.endswith(_END) else b"") + head.note + b"\n"
        if os.write(handle, data) != len(data):
            raise AnchorUnavailable(f"anchor {self.name} took a part of the checkpoint only; is the disk full?")
        os.fsync(handle)


def last_checkpoint(tail: bytes, policy: Policy) -> Checkpoint | None:
    """Return the last checkpoint at the end of a file that is whole and to be believed, None where no note is whole.

    Raises:
        InvalidProof: When there are whole notes, and none is to be believed.
    """
    *parts, _ = tail.split(_END)
    is_foreign = False
    for text, lines in zip(reversed(parts[:-1]), reversed(parts[1:]), strict=True):
        try:
            return open_checkpoint(text.lstrip(b"\n") + _END + lines + b"\n", policy=policy).checkpoint
        except MalformedProof:  # what a crash left, or two halves that do not belong together
            continue
        except InvalidProof:
            is_foreign = True
    if is_foreign:
        raise InvalidProof(f"the file holds no checkpoint of {policy.origin} by a key that is known; nothing was added")
    return None


@contextmanager
def _open(path: Path) -> Iterator[int]:
    """Open the file at *path* for this process alone."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileOptions(AnchorOptions):
    """A folder that is there; best one that this machine can only append to."""

    kind: Literal["file"]
    path: Annotated[Path, AfterValidator(_absolute)]

    def open(self, clock: Clock) -> FileAnchor:
        """Return the anchor."""
        del clock
        return FileAnchor(self.name, self.path)


KINDS.add("file", FileOptions)
