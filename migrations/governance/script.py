"""A migration script as rules look at it: its text, its syntax tree, and what it asks for."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from compliance.errors import MigrationError
from migrations.governance.allowance import Allowance, allowances
from migrations.governance.operation import Operation, Way
from migrations.governance.reading import read_operations
from migrations.revision import FILE_NAME, Phase, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One file of a migrations folder.

    Attributes:
        file: Its name in the folder.
        fault: Why it cannot be read, if so; it has no tree then.
        number: None where the name of the file does not fit, as ``phase``.
    """

    file: str
    tree: ast.Module
    operations: tuple[Operation, ...] = ()
    allowances: tuple[Allowance, ...] = ()
    fault: str | None = None
    number: int | None = None
    phase: Phase | None = None

    @property
    def is_online(self) -> bool:
        """Whether it declares an online change: ``CHANGE = Shape(...)``, which has its ways up and down."""
        return self.constant("CHANGE") is not None

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return PurePath(self.file).stem

    @property
    def order(self) -> tuple[int, int, str]:
        """Scripts run in the order of number, phase and name; files that are named otherwise come last."""
        last = 1_000
        return (last if self.number is None else self.number, self.phase or 0, self.name)

    def steps(self, way: Way | None = None) -> Iterator[Operation]:
        """Yield the operations of *way*, or of both."""
        return (operation for operation in self.operations if way is None or operation.way is way)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """Yield the nodes of the syntax tree that are of *kinds*."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    def function(self, name: str) -> ast.FunctionDef | None:
        """Return the function *name* of the module."""
        found = (node for node in self.tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        return next(found, None)

    def constant(self, name: str) -> tuple[ast.stmt, Any] | None:
        """Return where the module assigns *name* and the literal it assigns; None where it does not."""
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                value = getattr(node, "value", None)
                return node, value.value if isinstance(value, ast.Constant) else None
        return None


def parse_script(file: str, source: str | bytes) -> Script:
    """Return *source*, the text of *file* or its bytes in UTF-8, as a script; one that cannot be read says why."""
    named = FILE_NAME.fullmatch(file)
    number, phase = (int(named["number"]), Phase[named["phase"].upper()]) if named else (None, None)
    try:
        text = source.decode() if isinstance(source, bytes) else source
        tree = parse(text)
    except (MigrationError, UnicodeDecodeError) as error:
        fault = str(error) if isinstance(error, MigrationError) else "not valid Python: not UTF-8"
        return Script(file=file, tree=ast.Module([], []), fault=fault, number=number, phase=phase)
    return Script(
        file=file,
        tree=tree,
        operations=read_operations(tree),
        allowances=tuple(allowances(text)),
        number=number,
        phase=phase,
    )
