"""Give values to names, and compute what methods of mappings and built-ins over lists give."""

import ast
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from migrations.governance.operation import UNKNOWN

Names = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a known value."""

    owner: Any
    name: str


def bind(signature: ast.arguments, arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of *signature* by name; ``UNKNOWN`` where nothing is given."""
    positional = [parameter.arg for parameter in (*signature.posonlyargs, *signature.args)]
    every = [*positional, *(parameter.arg for parameter in signature.kwonlyargs)]
    return (
        dict.fromkeys(every, UNKNOWN)
        | dict(zip(positional, arguments, strict=False))
        | {name: value for name, value in options.items() if name in every}
    )


def assign(target: ast.expr, value: Any, names: Names) -> None:
    """Give *value*, or its elements, to the names of *target*."""
    if isinstance(target, ast.Name):
        names[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List):
        fits = isinstance(value, list) and len(value) == len(target.elts)
        for element, inner in zip(target.elts, value if fits else [UNKNOWN] * len(target.elts), strict=True):
            assign(element, inner, names)


def compute(function: Any, node: ast.expr, arguments: tuple[Any, ...]) -> Any:
    """Return what a method of a known mapping, or a built-in over a known list, gives."""
    if isinstance(function, Method) and isinstance(function.owner, dict) and not arguments:
        owner = function.owner
        views = {
            "items": [[name, value] for name, value in owner.items()],
            "keys": [*owner],
            "values": [*owner.values()],
        }
        return views.get(function.name, UNKNOWN)
    if isinstance(node, ast.Name) and len(arguments) == 1:
        return _rearrange(node.id, arguments[0])
    return UNKNOWN


def _rearrange(name: str, value: Any) -> Any:
    listed = [*value] if isinstance(value, dict) else value
    if not isinstance(listed, list):
        return UNKNOWN
    if name in ("list", "tuple", "sorted", "set", "frozenset"):  # order does not matter to a reader
        return listed
    if name == "dict":
        return value if isinstance(value, dict) else UNKNOWN
    return listed[::-1] if name == "reversed" else UNKNOWN
