"""A revision: one script of the migrations folder."""

import ast
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from compliance.errors import MigrationError

if TYPE_CHECKING:
    from migrations.context import Context

FILE_NAME = re.compile(r"v(?P<number>[0-9]{3})_(?P<phase>pre|data|post)_(?P<slug>[a-z][a-z0-9_]*)\.py")

Change = Callable[["Context"], None]


class Phase(IntEnum):
    """When a revision may run: before the new application (pre), beside it (data), after the old one is gone (post)."""

    PRE = 0
    DATA = 1
    POST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One script.

    Attributes:
        name: The file name without its suffix, such as ``v004_data_subscription_type``.
        summary: The first line of its docstring.
        checksum: SHA-256 over its syntax tree: comments and formatting are free.
        irreversible: Why it cannot be undone, if so.
    """

    name: str
    number: int
    phase: Phase
    summary: str
    checksum: str
    up: Change
    down: Change | None
    irreversible: str | None

    @property
    def order(self) -> tuple[int, Phase, str]:
        """Revisions run in the order of their number, then phase, then name."""
        return (self.number, self.phase, self.name)

    def matches(self, target: str) -> bool:
        """Whether *target* names this revision: in full, or ``004``, ``v004``, ``004_pre``."""
        short = f"{self.number:03d}"
        return target.removeprefix("v") in (self.name.removeprefix("v"), short, f"{short}_{self.phase.name.lower()}")


def checksum(source: str) -> str:
    """Return the SHA-256 over the syntax tree of *source*.

    Fields that are empty are left out, so that a later Python with more of them computes the same.

    Raises:
        MigrationError: When *source* is no Python.
    """
    return hashlib.sha256(meaning(parse(source)).encode()).hexdigest()


def parse(source: str) -> ast.Module:
    """Return the syntax tree of *source*.

    Raises:
        MigrationError: When *source* is no Python.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # before 3.11.4 a null byte is a ValueError
        raise MigrationError(f"not valid Python: line {getattr(error, 'lineno', None) or 1}") from None


def meaning(node: object) -> str:
    """Return what is left of a syntax tree without comments, formatting, and fields that are empty."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({', '.join(f'{name}={meaning(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(meaning(element) for element in node)}]"
    return repr(node)
