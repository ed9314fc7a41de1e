"""What a function of a script means, so that an edited one is known: its text, what of the script it uses, its values.

Of the script counts what the function reaches by name, over helper functions and constants: a definition that only a
later step uses may be edited. Comments and formatting are free.
"""

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache, partial
from types import CodeType
from typing import Any

from bson import json_util

from compliance.errors import MigrationError
from migrations.revision import meaning, parse

MODULE = "migration_"  # begins the name of the module that a script is loaded as
PLAIN = (timedelta, Decimal, range)
Names = frozenset[str]


def meaning_of(function: Callable[..., Any]) -> str:
    """Return what *function* means: the same in every process, for the same text and values."""
    return _meaning_of(function, seen=())


def _meaning_of(function: Any, *, seen: tuple[object, ...]) -> str:
    if any(function is one for one in seen):
        return "itself"
    seen = (*seen, function)
    if isinstance(function, partial):
        held = (*function.args, *(value for pair in sorted(function.keywords.items()) for value in pair))
        return " ".join(["partial", _meaning_of(function.func, seen=seen), *_values(held, seen)])
    plain = inspect.unwrap(function)
    return " ".join([_text(plain), *_reached(plain), *_values(_held(plain), seen)])


def _text(function: Any) -> str:
    """Return what a function says; its instructions where its text is not found, its name where it has none."""
    try:
        return meaning(parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, MigrationError):
        code = getattr(function, "__code__", None)
        return _compiled(code) if code is not None else _name(function)


def _name(function: Any) -> str:
    return f"{type(function)!r} {getattr(function, '__qualname__', '')}"


def _compiled(code: CodeType) -> str:
    """Return what compiled code does: its instructions, and the names and values that they use."""
    return " ".join([code.co_code.hex(), *code.co_names, *map(_constant, code.co_consts)])


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _compiled(value)
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _held(function: Any) -> list[Any]:
    """Return the values that a function carries with it: defaults, what it closes over, the fields of its object."""
    owner = getattr(function, "__self__", None if inspect.isroutine(function) else function)
    fields = getattr(owner, "__dict__", {}) if _is_of_script(type(owner)) else {}
    return [
        *(getattr(function, "__defaults__", None) or ()),
        *(value for pair in sorted((getattr(function, "__kwdefaults__", None) or {}).items()) for value in pair),
        *_closed_over(function),
        *(value for pair in sorted(fields.items()) for value in pair),
    ]


def _closed_over(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is filled later
            continue


def _values(values: Iterable[Any], seen: tuple[object, ...]) -> list[str]:
    return [_value(value, seen) for value in values]


def _value(value: Any, seen: tuple[object, ...]) -> str:
    """Return what *value* is; its type alone where it is no plain data, for an address differs in every process."""
    if callable(value):
        return _meaning_of(value, seen=seen)
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, set | frozenset):
        return repr(sorted(_values(value, seen)))
    try:
        return json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS)
    except (TypeError, ValueError):
        return type(value).__qualname__


def _is_of_script(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith(MODULE)


def _reached(function: Any) -> tuple[str, ...]:
    """Return what the statements of the script mean that *function* reaches; nothing for one of another module."""
    owner = type(getattr(function, "__self__", function))
    called = function if hasattr(function, "__code__") else vars(owner).get("__call__")
    code = getattr(called, "__code__", None)
    if code is None or not _is_of_script(called):
        return ()
    text = "".join(linecache.getlines(code.co_filename))
    return _reached_from(text, frozenset({*_names(code), *({owner.__name__} if _is_of_script(owner) else ())}))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _names(value)


@lru_cache(maxsize=64)
def _reached_from(text: str, names: Names) -> tuple[str, ...]:
    statements = parse(text).body
    return tuple(meaning(statement) for statement in reached(statements, names))


def reached(statements: Iterable[ast.stmt], names: Names) -> list[ast.stmt]:
    """Return those of a module's *statements* that decide what *names* stand for, over the names that they use in turn.

    A statement that does more than to bind a name counts for every name in it: it may change what that stands for.
    """
    said: Mapping[ast.stmt, tuple[Names, Names]] = {one: (_decides(one), _mentions(one)) for one in statements}
    found: set[ast.stmt] = set()
    known, wanted = set[str](), set(names)
    while wanted:
        new = [one for one, (decides, _) in said.items() if one not in found and decides & wanted]
        found.update(new)
        known |= wanted
        wanted = {name for one in new for name in said[one][1]} - known
    return [one for one in said if one in found]


def _decides(statement: ast.stmt) -> Names:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return frozenset({statement.name})
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return frozenset((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    if targets and all(isinstance(target, ast.Name) for target in targets):
        return frozenset(target.id for target in targets if isinstance(target, ast.Name))
    return _mentions(statement)


def _mentions(statement: ast.stmt) -> Names:
    inner = list(ast.walk(statement))
    defined = {node.name for node in inner if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    changed = {name for node in inner if isinstance(node, ast.Global) for name in node.names}
    return frozenset({node.id for node in inner if isinstance(node, ast.Name)} | defined | changed)
