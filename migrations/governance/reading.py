"""Read what a script does without running it: follow its constants, its loops over them and its functions.

A small part of Python is computed: displays, names, ``for`` over known values, calls of the script's own functions.
Whatever else there is has the value ``UNKNOWN``, and both sides of every branch are read.
"""

import ast
from collections import ChainMap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from migrations.governance.operation import CALLED, SHAPE, UNKNOWN, Handle, Operation, Way
from migrations.governance.values import Method, Names, assign, bind, compute

MOST_NODES = 50_000  # a script that makes more of itself than that is read up to here
DEEPEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of the script, and the names it sees."""

    node: ast.FunctionDef | ast.Lambda
    names: Names


def read_operations(tree: ast.Module) -> tuple[Operation, ...]:
    """Return every operation that ``up`` and ``down`` of *tree* lead to, or its online change is, in their order."""
    reader = _Reader()
    names: Names = {}
    reader.run(tree.body, names)
    for way in Way:
        function = names.get(way.value)
        if isinstance(function, Function):
            reader.way = way
            reader.enter(function, (Handle(),), {})
    return tuple(reader.operations)


class _Reader:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.way = Way.UP
        self._nodes = 0
        self._depth = 0
        self._loops: tuple[ast.stmt, ...] = ()
        self._within: tuple[str, ...] = ()

    def run(self, statements: Iterable[ast.stmt], names: Names) -> None:
        for statement in statements:
            handler = getattr(self, f"_{type(statement).__name__.lower()}", self._plain)
            handler(statement, names)

    def enter(self, function: Function, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._depth >= DEEPEST:
            return
        self._depth += 1
        own = bind(function.node.args, arguments, options)
        names: Names = ChainMap(own, function.names)
        if isinstance(function.node, ast.Lambda):
            self.value(function.node.body, names)
        else:
            self.run(function.node.body, names)
        self._depth -= 1

    # Statements

    def _plain(self, statement: ast.stmt, names: Names) -> None:
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.expr):
                self.value(child, names)

    def _functiondef(self, statement: ast.FunctionDef, names: Names) -> None:
        names[statement.name] = Function(statement, names)

    def _assign(self, statement: ast.Assign, names: Names) -> None:
        value = self.value(statement.value, names)
        for target in statement.targets:
            assign(target, value, names)

    def _annassign(self, statement: ast.AnnAssign, names: Names) -> None:
        if statement.value is not None:
            assign(statement.target, self.value(statement.value, names), names)

    def _augassign(self, statement: ast.AugAssign, names: Names) -> None:
        self.value(statement.value, names)
        assign(statement.target, UNKNOWN, names)

    def _if(self, statement: ast.If, names: Names) -> None:
        self.value(statement.test, names)
        self.run([*statement.body, *statement.orelse], names)

    def _for(self, statement: ast.For, names: Names) -> None:
        rounds = self.value(statement.iter, names)
        if isinstance(rounds, list):
            for element in rounds:
                assign(statement.target, element, names)
                self.run(statement.body, names)
        else:
            assign(statement.target, UNKNOWN, names)
            with self._in_loop(statement):
                self.run(statement.body, names)
        self.run(statement.orelse, names)

    def _while(self, statement: ast.While, names: Names) -> None:
        with self._in_loop(statement):
            self.value(statement.test, names)
            self.run(statement.body, names)
        self.run(statement.orelse, names)

    @contextmanager
    def _in_loop(self, statement: ast.stmt) -> Iterator[None]:
        before, self._loops = self._loops, (*self._loops, statement)
        yield
        self._loops = before

    def _with(self, statement: ast.With, names: Names) -> None:
        before = self._within
        for item in statement.items:
            count = len(self.operations)
            value = self.value(item.context_expr, names)
            self._within += tuple(operation.name for operation in self.operations[count:])
            if item.optional_vars is not None:
                assign(item.optional_vars, value, names)
        self.run(statement.body, names)
        self._within = before

    def _try(self, statement: ast.Try, names: Names) -> None:
        self.run(statement.body, names)
        for handler in statement.handlers:
            self.run(handler.body, names)
        self.run([*statement.orelse, *statement.finalbody], names)

    def _match(self, statement: ast.Match, names: Names) -> None:
        self.value(statement.subject, names)
        for case in statement.cases:
            self.run(case.body, names)

    # Expressions

    def value(self, node: ast.expr, names: Names) -> Any:
        """Return the value of *node*, and note the operations in it."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            return UNKNOWN
        handler = getattr(self, f"_{type(node).__name__.lower()}", self._unknown)
        return handler(node, names)

    def _unknown(self, node: ast.expr, names: Names) -> Any:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child, names)
        return UNKNOWN

    def _constant(self, node: ast.Constant, _: Names) -> Any:
        return node.value

    def _name(self, node: ast.Name, names: Names) -> Any:
        return names.get(node.id, UNKNOWN)

    def _lambda(self, node: ast.Lambda, names: Names) -> Any:
        return Function(node, names)

    def _namedexpr(self, node: ast.NamedExpr, names: Names) -> Any:
        value = self.value(node.value, names)
        assign(node.target, value, names)
        return value

    def _list(self, node: ast.List | ast.Tuple | ast.Set, names: Names) -> Any:
        found: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                inner = self.value(element.value, names)
                found += inner if isinstance(inner, list) else [UNKNOWN]
            else:
                found.append(self.value(element, names))
        return found

    _tuple = _set = _list

    def _dict(self, node: ast.Dict, names: Names) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            inner = self.value(value, names)
            if key is None:
                found |= inner if isinstance(inner, dict) else {UNKNOWN: UNKNOWN}
            else:
                name = self.value(key, names)
                found[name if isinstance(name, str | int) else UNKNOWN] = inner
        return found

    def _binop(self, node: ast.BinOp, names: Names) -> Any:
        left, right = self.value(node.left, names), self.value(node.right, names)
        if isinstance(node.op, ast.BitOr) and isinstance(left, dict) and isinstance(right, dict):
            return left | right
        if isinstance(node.op, ast.Add) and type(left) is type(right) and isinstance(left, list | str):
            return left + right
        return UNKNOWN

    def _unaryop(self, node: ast.UnaryOp, names: Names) -> Any:
        value = self.value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) and isinstance(value, int | float) else UNKNOWN

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, names: Names) -> Any:
        return self._comprehend(node.generators, (node.elt,), names)

    _generatorexp = _setcomp = _listcomp

    def _dictcomp(self, node: ast.DictComp, names: Names) -> Any:
        self._comprehend(node.generators, (node.key, node.value), names)
        return UNKNOWN

    def _comprehend(self, loops: list[ast.comprehension], results: tuple[ast.expr, ...], names: Names) -> Any:
        own: Names = ChainMap({}, names)
        for loop in loops:
            self.value(loop.iter, own)
            assign(loop.target, UNKNOWN, own)
            for condition in loop.ifs:
                self.value(condition, own)
        for result in results:
            self.value(result, own)
        return UNKNOWN

    def _attribute(self, node: ast.Attribute, names: Names) -> Any:
        value = self.value(node.value, names)
        if isinstance(value, Handle):
            return Handle((*value.steps, node.attr))
        return Method(value, node.attr) if isinstance(value, dict | list) else UNKNOWN

    def _subscript(self, node: ast.Subscript, names: Names) -> Any:
        value, key = self.value(node.value, names), self.value(node.slice, names)
        if isinstance(value, Handle):
            return Handle((*value.steps, key))
        try:
            return value[key] if isinstance(value, dict | list) else UNKNOWN
        except (KeyError, IndexError, TypeError):
            return UNKNOWN

    def _call(self, node: ast.Call, names: Names) -> Any:
        function = self.value(node.func, names)
        arguments = tuple(self.value(argument, names) for argument in node.args)
        options = {keyword.arg or "**": self.value(keyword.value, names) for keyword in node.keywords}
        if isinstance(function, Handle) and function.steps and isinstance(function.steps[-1], str):
            return self._operate(node, function, arguments, options)
        if isinstance(node.func, ast.Name) and node.func.id == SHAPE and function is UNKNOWN:
            return self._operate(node, Handle((SHAPE,)), arguments, options)
        if isinstance(function, Function):
            self.enter(function, arguments, options)
            return UNKNOWN
        return compute(function, node.func, arguments)

    def _operate(self, node: ast.Call, handle: Handle, arguments: tuple[Any, ...], options: dict[str, Any]) -> Handle:
        *target, name = handle.steps
        self.operations.append(
            Operation(
                target=tuple(target),
                name=name,
                arguments=arguments,
                options=options,
                node=node,
                way=self.way,
                loops=self._loops,
                within=self._within,
            )
        )
        before, self._within = self._within, (*self._within, name)
        for value in (*arguments, *options.values()):
            if isinstance(value, Function):
                self.enter(value, (), {})
        self._within = before
        return Handle((*handle.steps, CALLED))
