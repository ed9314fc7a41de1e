"""A revision: one script of the migrations folder."""

import ast
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from compliance.errors import MigrationError

if TYPE_CHECKING:
    from migrations.context import Context
    from migrations.online.shape import Shape

FILE_NAME = re.compile(r"v(?P<number>[0-9]{3})_(?P<phase>pre|data|post)_(?P<slug>[a-z][a-z0-9_]*)\.py")

Change = Callable[["Context"], None]


class Phase(IntEnum):
    """When a revision may run: before the new application (pre), beside it (data), after the old one is gone (post)."""

    PRE = 0
    DATA = 1
    POST = 2


class Name(NamedTuple):
    """What the name of a script says."""

    name: str
    number: int
    phase: Phase


def parse_name(file_name: str) -> Name:
    """Return what *file_name*, such as ``v001_pre_reviews.py``, says.

    Raises:
        MigrationError: When it does not fit.
    """
    named = FILE_NAME.fullmatch(file_name)
    if named is None:
        raise MigrationError(f"{file_name}: name migration scripts vNNN_<pre|data|post>_<slug>.py, in lower case")
    return Name(file_name.removesuffix(".py"), int(named["number"]), Phase[named["phase"].upper()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What a script holds that is loaded: its two functions; those of an online change are its first and last phase."""

    up: Change
    down: Change | None
    change: "Shape | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One script, as its text says it; it is loaded when one of its functions is asked for.

    Attributes:
        name: The file name without its suffix, such as ``v004_data_subscription_type``.
        summary: The first line of its docstring.
        checksum: SHA-256 over its syntax tree: comments and formatting are free.
        irreversible: Why it cannot be undone, if so.
        depends_on: Names of the scripts that must be applied before it; None leaves that to the numbers.
        source: The bytes that were read, which are those that run.
        is_online: Whether it declares an online change, which stays open until it is completed.
        load: Returns its functions; a script that cannot be loaded raises MigrationError.
    """

    name: str
    number: int
    phase: Phase
    summary: str
    checksum: str
    irreversible: str | None
    depends_on: tuple[str, ...] | None
    source: bytes = field(repr=False)
    load: Callable[[], Code] = field(repr=False)
    is_online: bool = False

    @property
    def up(self) -> Change:
        """The way up."""
        return self.load().up

    @property
    def down(self) -> Change | None:
        """The way back; None where there is none."""
        return None if self.irreversible else self.load().down

    @property
    def order(self) -> tuple[int, Phase, str]:
        """Scripts that do not depend on each other run in the order of their number, then phase, then name."""
        return (self.number, self.phase, self.name)

    def matches(self, target: str) -> bool:
        """Whether *target* names this revision: in full, or ``004``, ``v004``, ``004_pre``."""
        short = f"{self.number:03d}"
        return target.removeprefix("v") in (self.name.removeprefix("v"), short, f"{short}_{self.phase.name.lower()}")


def module_of(name: str) -> str:
    """Return the name of the module that the script *name* is loaded as."""
    return f"migration_{name}"


def checksum(source: str) -> str:
    """Return the ``digest`` of the syntax tree of *source*.

    Raises:
        MigrationError: When *source* is no Python.
    """
    return digest(parse(source))


def digest(tree: ast.Module) -> str:
    """Return the SHA-256 over the ``meaning`` of *tree*."""
    return hashlib.sha256(meaning(tree).encode()).hexdigest()


_PARSING = threading.Lock()  # until 3.11.8 two threads that parse at once may both get a SystemError


def parse(source: str) -> ast.Module:
    """Return the syntax tree of *source*.

    Raises:
        MigrationError: When *source* is no Python.
    """
    try:
        with _PARSING:
            return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # before 3.11.4 a null byte is a ValueError
        raise MigrationError(f"not valid Python: line {getattr(error, 'lineno', None) or 1}") from None


def meaning(node: object) -> str:
    """Return what is left of a syntax tree without comments, formatting, and fields that are empty.

    A later Python with more fields computes the same, as long as they are empty.
    """
    if isinstance(node, ast.AST):
        # A folder of hundreds of scripts is read at every start, so this loop is worth its lines.
        parts = []
        for name in node._fields:
            value = getattr(node, name, None)
            if type(value) is str:
                parts.append(f"{name}={value!r}")
            elif value is not None and value != []:
                parts.append(f"{name}={meaning(value)}")
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join([meaning(element) for element in node])}]"
    return repr(node)
