"""A private folder of one process in the temporary directory; what a killed one leaves, the next one removes.

A process holds a lock on its folder until it and its children are gone: the kernel sees to that. A process id in the
name would not do, for containers that share a directory have the same ids.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class ProcessFolder:
    """A folder that only this process, its children and their user can read.

    Attributes:
        path: Where it is.
        lock: The descriptor that holds it.
    """

    path: Path
    lock: int

    @classmethod
    def make(cls, prefix: str) -> Self:
        """Make a folder whose name begins with *prefix*, and remove those that processes of our user left behind."""
        remove_left_behind(prefix)
        made = Path(tempfile.mkdtemp(prefix=f"new-{prefix}"))  # mode 0700
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks: then nobody can lock it to remove it, either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only now it has a name that others look for: they never see it without its lock.
        return cls(made.rename(made.with_name(made.name.removeprefix("new-"))), lock)

    def remove(self) -> None:
        """Remove it with all that it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def remove_left_behind(prefix: str) -> None:
    """Remove the folders of *prefix* that no process holds; those of other users are left alone."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # no folder, gone meanwhile, or not ours to open
            _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
