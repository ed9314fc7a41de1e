"""Find the scripts of a migrations folder and load them."""

import ast
import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from compliance.errors import MigrationError
from migrations.revision import FILE_NAME, Phase, Revision, checksum, parse

IGNORED = ("__init__.py",)
OURS = ("migrations.context", "migrations.ops", "bson", "pymongo")
COMPUTING = (
    "collections",
    "dataclasses",
    "decimal",
    "enum",
    "functools",
    "itertools",
    "math",
    "re",
    "typing",
    "unicodedata",
)
ALLOWED_IMPORTS = (*OURS, *COMPUTING, "__future__")


def discover(folder: Path, *, foundation: Path | None = None) -> tuple[Revision, ...]:
    """Return every revision of *folder* in order, after the *foundation* that every folder stands on.

    Raises:
        MigrationError: For a file whose name does not fit (nothing is skipped in silence), two scripts of one number
            and phase, or a script without docstring, ``up`` or a way back.
    """
    if not folder.is_dir():
        raise MigrationError(f"the migrations folder {folder.name} does not exist; set COMPLIANCE_MIGRATIONS")
    files = sorted(path for path in folder.glob("*.py") if path.name not in IGNORED)
    if foundation is not None and foundation.name not in {path.name for path in files}:
        files.insert(0, foundation)
    revisions = sorted((_load(path) for path in files), key=lambda revision: revision.order)
    _refuse_duplicates(revisions)
    return tuple(revisions)


def _load(path: Path) -> Revision:
    named = FILE_NAME.fullmatch(path.name)
    if named is None:
        raise MigrationError(f"{path.name}: name migration scripts vNNN_<pre|data|post>_<slug>.py, in lower case")
    try:
        source = path.read_text(encoding="utf-8")
        digest, tree = checksum(source), parse(source)
    except UnicodeDecodeError:
        raise MigrationError(f"{path.name}: not valid Python: not UTF-8") from None
    except MigrationError as error:
        raise MigrationError(f"{path.name}: {error}") from None
    _refuse_foreign_imports(path.name, tree)
    module = _import(path)
    up, down = getattr(module, "up", None), getattr(module, "down", None)
    irreversible = getattr(module, "IRREVERSIBLE", None)
    if up is None:
        raise MigrationError(f"{path.name}: define up(ctx)")
    if (down is None) == (not irreversible):
        raise MigrationError(f'{path.name}: define down(ctx), or IRREVERSIBLE = "why", not both')
    if not (module.__doc__ or "").strip():
        raise MigrationError(f"{path.name}: begin with a docstring that says what it changes")
    return Revision(
        name=path.stem,
        number=int(named["number"]),
        phase=Phase[named["phase"].upper()],
        summary=str(module.__doc__).strip().splitlines()[0],
        checksum=digest,
        up=up,
        down=down,
        irreversible=irreversible,
    )


def _refuse_foreign_imports(name: str, tree: ast.Module) -> None:
    """History must not change when the application does: scripts import the migration interface and the driver only."""
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += ["." * node.level + (node.module or "")] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            if not any(module == known or module.startswith(f"{known}.") for known in ALLOWED_IMPORTS):
                raise MigrationError(
                    f"{name}: imports {module}; a migration script may import migrations.context, migrations.ops, "
                    "bson, pymongo, and of the standard library what only computes (typing, re, unicodedata, ...)"
                )


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise MigrationError(f"{path.name}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise MigrationError(f"{path.name}: fails while it is loaded ({type(error).__name__})") from error
    return module


def _refuse_duplicates(revisions: Sequence[Revision]) -> None:
    for first, second in pairwise(revisions):
        if (first.number, first.phase) == (second.number, second.phase):
            raise MigrationError(f"{first.name} and {second.name} have the same number and phase; renumber one")
