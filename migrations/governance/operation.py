"""What a migration script asks for, as far as its text tells: steps of ``ctx``, and calls of the driver below it."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "ensure_foundation": (),
    "create_collection": ("name",),
    "set_schema": ("name",),
    "roll_out_validator": ("name", "schema"),
    "drop_collection": ("name",),
    "create_index": ("collection", "name", "keys"),
    "create_unique": ("collection", "name", "keys"),
    "hide_index": ("collection", "name"),
    "unhide_index": ("collection", "name"),
    "drop_index": ("collection", "name"),
    "partition": ("collection",),
    "merge_partitions": ("collection",),
    "drop_buckets": ("collection",),
    "shard_collection": ("collection", "keys"),
    "backfill": ("collection",),
    "walk": ("collection",),
    "transform": ("collection",),
    "restore": ("collection",),
    "rebuild": ("collection",),
    "drop_rebuilt": ("collection",),
    "atomic": ("what", "function"),
    "verify": ("collection",),
    "gate": ("name",),
    "python": ("what", "function"),
    "check_health": (),
    "erase_people": ("collection",),
    "export_collection": ("collection",),
    "import_collection": ("collection",),
}
SHAPE: Final = "Shape"  # of ``CHANGE = Shape(...)``, an online change, which stands for the steps that it takes
CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "aggregate": ("pipeline",),
    "bulk_write": ("requests",),
    "command": ("command", "value"),
    "create_collection": ("name",),
    "create_index": ("keys",),
    "create_indexes": ("indexes",),
    "delete_many": ("filter",),
    "delete_one": ("filter",),
    "drop": (),
    "drop_collection": ("name",),
    "drop_index": ("name",),
    "drop_indexes": (),
    "find": ("filter", "projection"),
    "find_one": ("filter", "projection"),
    "find_one_and_delete": ("filter",),
    "find_one_and_replace": ("filter", "replacement"),
    "find_one_and_update": ("filter", "update"),
    "hint": ("keys",),
    "insert_many": ("documents",),
    "insert_one": ("document",),
    "rename": ("new_name",),
    "replace_one": ("filter", "replacement"),
    "sort": ("keys", "direction"),
    "update_many": ("filter", "update"),
    "update_one": ("filter", "update"),
}
WRITES = frozenset(
    name for name in CALLS if name.startswith(("bulk", "delete", "find_one_and", "insert", "replace", "update"))
)
WRITE_COMMANDS = frozenset({"insert", "update", "delete", "findAndModify", "findandmodify", "bulkWrite"})
IN_TRANSACTION = frozenset({"atomic", "start_transaction", "with_transaction"})


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


UNKNOWN: Final[Any] = _Mark("UNKNOWN")  # a value that only a run knows
CALLED: Final[Any] = _Mark("CALLED")  # in a handle: the result of the call before it


class Way(StrEnum):
    """Which of the two functions of a script leads to an operation."""

    UP = "up"
    DOWN = "down"


class Kind(StrEnum):
    """What an operation does to a database that an application uses at the same time."""

    EXPAND = "expand"
    CONTRACT = "contract"
    DATA = "data"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Handle:
    """Something that ``ctx`` leads to, such as ``ctx.databases.app["users"]``: the names on the way."""

    steps: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call on ``ctx`` or below it, with the values that the text of the script gives to its arguments.

    Attributes:
        target: The names between ``ctx`` and the operation: empty for a step, ``("databases", "app", "users")`` for a
            call of the driver.
        loops: The loops around it whose rounds the text does not tell, the outermost first.
        within: The names of the calls whose block or function it stands in, such as ``start_transaction``.
    """

    target: tuple[Any, ...]
    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    node: ast.expr
    way: Way
    loops: tuple[ast.stmt, ...] = ()
    within: tuple[str, ...] = field(default=())

    @property
    def is_step(self) -> bool:
        """Whether ``ctx`` itself is called."""
        return not self.target

    @property
    def is_shape(self) -> bool:
        """Whether it is an online change, which writes the fields of both of its shapes."""
        return self.is_step and self.name == SHAPE

    @property
    def line(self) -> int:
        """Where it stands."""
        return self.node.lineno

    def value(self, name: str, default: Any = None) -> Any:
        """Return the argument *name*, ``UNKNOWN`` where only a run knows it, *default* where it is not given."""
        if name in self.options:
            return self.options[name]
        names = (STEPS if self.is_step else CALLS).get(self.name, ())
        return self.arguments[names.index(name)] if name in names[: len(self.arguments)] else default

    @property
    def database(self) -> str | None:
        """The attribute of ``ctx.databases`` it works on: ``app`` for steps."""
        if self.is_step:
            return "app"
        return str(self.target[1]) if self.target[0] == "databases" and len(self.target) > 1 else None

    @property
    def collection(self) -> str | None:
        """The collection of the application database it works on; None where the text does not tell."""
        if self.is_step:
            found = self.value("collection", self.value("name")) if self.name in (*STEPS, SHAPE) else None
        elif self.name == "command":
            found = self.command[1]
        elif self.name in ("create_collection", "drop_collection"):
            found = self.value("name")
        else:
            found = self.target[2] if len(self.target) > 2 else None  # noqa: PLR2004 - databases, which one, collection
        found = found.steps[-1] if isinstance(found, Handle) and found.steps else found
        return found if isinstance(found, str) else None

    @property
    def command(self) -> tuple[str, Any, Mapping[Any, Any]]:
        """Name, first value and fields of what ``command`` sends; the name is empty where the text does not tell."""
        sent = self.value("command")
        if isinstance(sent, str):
            return sent, self.value("value"), self.options
        if isinstance(sent, dict) and sent and isinstance(next(iter(sent)), str):
            return next(iter(sent)), next(iter(sent.values())), sent
        return "", UNKNOWN, {}

    @property
    def kind(self) -> Kind:
        """What it does to the database."""
        return _kind_of_step(self) if self.is_step else _kind_of_call(self)

    @property
    def updates(self) -> tuple[Any, ...]:
        """The update documents or pipelines it carries, as far as the text tells."""
        if self.name == "command" and self.command[0] == "update":
            statements = self.command[2].get("updates")
            listed = statements if isinstance(statements, list) else []
            return tuple(statement.get("u") for statement in listed if isinstance(statement, dict))
        if self.is_shape:
            return tuple(found for found in (self.value("up"), self.value("down")) if found is not None)
        found = self.value("update")
        return () if found is None else (found,)

    @property
    def where(self) -> Any:
        """The filter of a change: ``where`` of a step, ``filter`` of a call."""
        return self.value("where" if self.is_step else "filter")


def _kind_of_step(operation: Operation) -> Kind:
    match operation.name:
        case "create_collection" | "create_index" | "create_unique":
            return Kind.EXPAND
        case "set_schema":
            return Kind.EXPAND if operation.value("level", "strict") != "strict" else Kind.CONTRACT
        case "roll_out_validator":
            return Kind.EXPAND if operation.value("to", "strict") != "strict" else Kind.CONTRACT
        case "drop_collection" | "drop_index" | "drop_buckets":
            return Kind.CONTRACT
        case (
            "backfill"
            | "walk"
            | "transform"
            | "restore"
            | "rebuild"
            | "atomic"
            | "partition"
            | "merge_partitions"
            | "Shape"
        ):
            return Kind.DATA
    return Kind.DATA if operation.is_shape else Kind.OTHER


def _kind_of_call(operation: Operation) -> Kind:
    if operation.name == "command":
        return _kind_of_command(operation)
    if operation.name in WRITES:
        return Kind.DATA
    if operation.name in ("create_collection", "create_index", "create_indexes"):
        return Kind.EXPAND
    if operation.name in ("drop", "drop_collection", "drop_index", "drop_indexes", "rename"):
        return Kind.CONTRACT
    return Kind.OTHER


def _kind_of_command(operation: Operation) -> Kind:
    name, _, fields = operation.command
    if name in WRITE_COMMANDS:
        return Kind.DATA
    if name in ("create", "createIndexes"):
        return Kind.EXPAND
    if name in ("drop", "dropIndexes", "renameCollection"):
        return Kind.CONTRACT
    if name == "collMod" and "validator" in fields:
        return Kind.CONTRACT if fields.get("validationLevel", "strict") == "strict" else Kind.EXPAND
    return Kind.OTHER
