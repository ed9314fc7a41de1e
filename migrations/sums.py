"""``migrations.sum``: every script of a folder with its checksum, and a digest of the whole.

Two branches that each add a script both change the first line, so git reports a conflict where it would merge two
scripts that nobody has seen together. The form::

    migrations.sum/v1 <SHA-256 of the lines below>
    v001_pre_reviews <checksum of the script>
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from compliance.errors import FolderDiffers, MigrationError
from migrations.revision import Revision

FILE = "migrations.sum"
_FIRST = re.compile(r"migrations\.sum/v1 ([0-9a-f]{64})")
_LINE = re.compile(r"(v[0-9]{3}_(?:pre|data|post)_[a-z][a-z0-9_]*) ([0-9a-f]{64})")
MEND = "look at the scripts, then run `compliance migrate sum` and commit the file with them"


def format_sum(revisions: Iterable[Revision]) -> str:
    """Return the content of ``migrations.sum`` for *revisions*."""
    numbered = sorted(revisions, key=lambda revision: revision.order)
    lines = "".join(f"{revision.name} {revision.checksum}\n" for revision in numbered)
    return f"migrations.sum/v1 {sha256(lines.encode()).hexdigest()}\n{lines}"


def parse_sum(text: str) -> dict[str, str]:
    """Return the checksum of each script by its name.

    Raises:
        FolderDiffers: When *text* is not of the form, such as with the marks of a conflict, or was edited by hand.
    """
    first, *lines = text.splitlines() or [""]
    head, found = _FIRST.fullmatch(first), [_LINE.fullmatch(line) for line in lines]
    sums = {line[1]: line[2] for line in found if line}
    if not head or len(sums) < len(lines):
        raise FolderDiffers(f"{FILE} is not of its form, maybe because two branches added a script; {MEND}")
    if head[1] != sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest():
        raise FolderDiffers(f"the first line of {FILE} does not fit the others; {MEND}")
    return sums


def compare(sums: Mapping[str, str], revisions: Iterable[Revision]) -> None:
    """Return if *sums* are those of *revisions*.

    Raises:
        FolderDiffers: Naming the scripts that were added, changed or taken away.
    """
    now = {revision.name: revision.checksum for revision in revisions}
    differences = {
        "new": sorted(now.keys() - sums.keys()),
        "changed": sorted(name for name in now.keys() & sums.keys() if now[name] != sums[name]),
        "gone": sorted(sums.keys() - now.keys()),
    }
    told = [f"{word}: {', '.join(names)}" for word, names in differences.items() if names]
    if told:
        raise FolderDiffers(f"the folder differs from its {FILE} ({'; '.join(told)}); {MEND}")


def check_sum(folder: Path, revisions: Iterable[Revision]) -> bool:
    """Compare *folder* with its file; return whether it has one.

    Args:
        folder: Where the scripts are.
        revisions: At least those of *folder*; one that came from elsewhere does not count.

    Raises:
        FolderDiffers: When they do not fit.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        raise FolderDiffers(f"{FILE} cannot be read; {MEND}") from None
    compare(parse_sum(text), [revision for revision in revisions if (folder / f"{revision.name}.py").exists()])
    return True


def write_sum(folder: Path, revisions: Iterable[Revision]) -> bool:
    """Write the file of *folder*; return whether that changed it.

    Raises:
        MigrationError: When the folder cannot be written to.
    """
    path, content = folder / FILE, format_sum(revisions).encode()
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.write_bytes(content)
    except OSError:
        raise MigrationError(f"{FILE} cannot be written in the migrations folder {folder.name}") from None
    return True
