"""Find the scripts of a migrations folder and read them; each is loaded when it is to run."""

import ast
import linecache
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from compliance.errors import MigrationError, RevisionDuplicate
from migrations.online.shape import Shape
from migrations.revision import Code, Revision, digest, module_of, parse, parse_name

CHANGE = "CHANGE"  # the name under which a script declares an online change
IGNORED = ("__init__.py",)
OURS = ("migrations.context", "migrations.ops", "bson", "pymongo")
COMPUTING = (
    "collections",
    "dataclasses",
    "datetime",  # lengths and constants; a rule finds who asks its clock
    "decimal",
    "enum",
    "functools",
    "itertools",
    "math",
    "re",
    "typing",
    "unicodedata",
)
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
ALLOWED_IMPORTS = (*OURS, *COMPUTING, "__future__")


def discover(folder: Path, *, foundation: Path | None = None) -> tuple[Revision, ...]:
    """Return every revision of *folder* by its number, after the *foundation* that every folder stands on.

    Nothing of a script is carried out: what it declares is read from its syntax tree.

    Raises:
        MigrationError: For a file whose name does not fit (nothing is skipped in silence), or a script without
            docstring, ``up`` or a way back.
        RevisionDuplicate: For two scripts of one number and phase.
    """
    if not folder.is_dir():
        raise MigrationError(f"the migrations folder {folder.name} does not exist; set COMPLIANCE_MIGRATIONS")
    files = sorted(path for path in folder.glob("*.py") if path.name not in IGNORED)
    if foundation is not None and foundation.name not in {path.name for path in files}:
        files.insert(0, foundation)
    read = (read_script(path.name, path.read_bytes(), place=str(path)) for path in files)
    revisions = sorted(read, key=lambda revision: revision.order)
    _refuse_duplicates(revisions)
    return tuple(revisions)


def read_script(file_name: str, source: bytes, *, place: str) -> Revision:
    """Return the revision that *source* declares.

    Args:
        file_name: Such as ``v001_pre_reviews.py``.
        source: Python in UTF-8.
        place: Where it comes from, for the traces of its errors.

    Raises:
        MigrationError: Naming the file and what is wrong with it.
    """
    name, number, phase = parse_name(file_name)
    try:
        text = source.decode()
        tree = parse(text)
        _refuse_foreign_imports(tree)
        irreversible = _irreversible(tree)
        _refuse_lack(tree, irreversible)
        depends_on = _depends_on(tree)
    except UnicodeDecodeError:
        raise MigrationError(f"{file_name}: not valid Python: not UTF-8") from None
    except MigrationError as error:
        raise MigrationError(f"{file_name}: {error}") from None
    return Revision(
        name=name,
        number=number,
        phase=phase,
        summary=str(ast.get_docstring(tree)).strip().splitlines()[0],
        checksum=digest(tree),
        irreversible=irreversible,
        depends_on=depends_on,
        source=source,
        is_online=is_online(tree),
        load=cache(partial(_load, name, text, place)),
    )


def _refuse_foreign_imports(tree: ast.Module) -> None:
    """History must not change when the application does: scripts import the migration interface and the driver only."""
    for node in _statements(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += ["." * node.level + (node.module or "")] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            if not any(module == known or module.startswith(f"{known}.") for known in ALLOWED_IMPORTS):
                raise MigrationError(
                    f"imports {module}; a migration script may import migrations.context, migrations.ops, "
                    "bson, pymongo, and of the standard library what only computes (typing, re, unicodedata, ...)"
                )


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Go through the statements alone, however deep: an import is never inside an expression."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        for name in BLOCKS:
            ahead += getattr(node, name, ()) if name in node._fields else ()


def is_online(tree: ast.Module) -> bool:
    """Whether a script declares an online change: ``CHANGE = Shape(...)`` instead of functions."""
    return _assigned(tree, CHANGE) is not None


def _refuse_lack(tree: ast.Module, irreversible: str | None) -> None:
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if is_online(tree):
        if functions & {"up", "down"} or irreversible:
            raise MigrationError("CHANGE has its own ways up and down; define no up, down or IRREVERSIBLE beside it")
        functions = {"up", "down"}
    if "up" not in functions:
        raise MigrationError("define up(ctx)")
    if ("down" in functions) == bool(irreversible):
        raise MigrationError('define down(ctx), or IRREVERSIBLE = "why", not both')
    if not (ast.get_docstring(tree) or "").strip():
        raise MigrationError("begin with a docstring that says what it changes")


def _irreversible(tree: ast.Module) -> str | None:
    why = _declared(tree, "IRREVERSIBLE")
    if why is None or (isinstance(why, str) and why.strip()):
        return why
    raise MigrationError('define down(ctx), or IRREVERSIBLE = "why" as one literal text that says why')


def _depends_on(tree: ast.Module) -> tuple[str, ...] | None:
    names = _declared(tree, "DEPENDS_ON")
    if names is None:
        return None
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise MigrationError('write DEPENDS_ON as a tuple of names: DEPENDS_ON = ("v004_post_subscription_type",)')
    return tuple(dict.fromkeys(names))


def _declared(tree: ast.Module, name: str) -> object:
    """Return the literal that the script gives to *name*: None where it gives nothing, ``...`` for what is none."""
    value = _assigned(tree, name)
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return ...


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    for node in reversed(tree.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
    return None


def _load(name: str, text: str, place: str) -> Code:
    """Carry out the text that was read, for what was compared must be what runs: the file may be another by now."""
    module = ModuleType(module_of(name))
    module.__file__ = place
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)  # what inspect finds, too
    try:
        exec(compile(text, place, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - loading is its purpose
    except Exception as error:
        raise MigrationError(f"{name}.py: fails while it is loaded ({type(error).__name__})") from error
    change = getattr(module, CHANGE, None)
    if change is None:
        return Code(up=module.up, down=getattr(module, "down", None))
    if not isinstance(change, Shape):
        raise MigrationError(f"{name}.py: CHANGE is no Shape; write CHANGE = Shape(collection=..., ...)")
    try:
        change.check()
    except MigrationError as error:
        raise MigrationError(f"{name}.py: {error}") from None
    return Code(up=lambda ctx: ctx.expand(change), down=lambda ctx: ctx.undo(change), change=change)


def _refuse_duplicates(revisions: Sequence[Revision]) -> None:
    for first, second in pairwise(revisions):
        if (first.number, first.phase) == (second.number, second.phase):
            raise RevisionDuplicate(
                f"{first.name} and {second.name} have the same number and phase; renumber the one that is not applied"
            )
