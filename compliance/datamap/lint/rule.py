"""What a rule of data maps is, and the registry of rules."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from compliance.datamap.catalogue import Catalogue, Held
from compliance.datamap.model import DataMap
from compliance.datamap.rule import Rule as ErasureRule
from compliance.registry import Registry


class Severity(StrEnum):
    """An ``error`` keeps an erasure from being lawful or possible, a ``warning`` makes it slow or doubtful."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a rule found.

    Attributes:
        place: In the map, such as ``collections.orders.rules.0.on_erase``.
        why: One sentence, free of values from documents.
        fix: YAML to paste, or a command.
    """

    place: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Placed:
    """One rule of a map, and where it stands."""

    collection: str
    number: int
    rule: ErasureRule

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"collections.{self.collection}.rules.{self.number}"


@dataclass(frozen=True, slots=True)
class Case:
    """What rules look at.

    Attributes:
        live: The database; empty where nobody asked it.
    """

    data_map: DataMap
    live: Catalogue

    def held(self, collection: str) -> Held:
        """Return *collection* as it is, or an empty one."""
        return self.live.get(collection, Held())

    @property
    def buckets(self) -> frozenset[str]:
        """The collections that have their rules from another one, of which alone is spoken."""
        declared = self.data_map.buckets.items()
        return frozenset(bucket for name, buckets in declared for bucket in buckets.named(name))

    def rules(self) -> Iterator[Placed]:
        """Yield every rule that somebody wrote."""
        buckets = self.buckets
        for name, collection in self.data_map.collections.items():
            for number, rule in enumerate(collection.rules if name not in buckets else ()):
                yield Placed(name, number, rule)

    def with_history(self, collection: str) -> tuple[str, ...]:
        """Return *collection*, and that of its old versions where it is there."""
        history = self.data_map.history
        old = collection + history.suffix if history else collection
        return (collection, old) if old != collection and old in self.live else (collection,)


Look = Callable[[Case], Iterator[Fault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of data maps.

    Attributes:
        title: What it finds.
    """

    code: str
    title: str
    severity: Severity
    look: Look


RULES: Registry[Rule] = Registry("rule of data maps")


def rule(code: str, severity: Severity = Severity.ERROR) -> Callable[[Look], Look]:
    """Register the decorated function as the rule *code*; its docstring says what it finds."""

    def register(look: Look) -> Look:
        title = (inspect.getdoc(look) or "").partition("\n\n")[0].removesuffix(".")
        RULES.add(code, Rule(code=code, title=title, severity=severity, look=look))
        return look

    return register
