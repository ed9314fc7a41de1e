"""The categories of personal data by which a map says what a field holds: those of fideslang.

Source: the default taxonomy of fideslang 3.1.4 (Apache-2.0), which other tools for data maps read, too.
"""

from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("fideslang.txt")


@cache
def categories() -> frozenset[str]:
    """Return every category; each name holds those of the wider ones before its dots."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def is_category(name: str) -> bool:
    """Whether *name* is one."""
    return name in categories()


def is_within(name: str, wider: str) -> bool:
    """Whether the category *name* is *wider* or a part of it; ``user.name_x`` is no part of ``user.name``."""
    return name == wider or name.startswith(f"{wider}.")
