"""What a rule is, and the registry of rules."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from compliance.datamap.model import DataMap
from compliance.registry import Registry
from migrations.governance.catalogue import Catalogue
from migrations.governance.operation import Operation
from migrations.governance.sample import Sample
from migrations.governance.script import Script


class Severity(StrEnum):
    """What follows: an ``error`` keeps a script out of production, a ``warning`` does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a rule looks at.

    Attributes:
        before: The scripts that stand before this one in the folder, in order.
        data_map: Where data of people is; None where nobody gave one.
        catalogue: The live database; None where nobody asked it.
    """

    script: Script
    before: tuple[Script, ...] = ()
    data_map: DataMap | None = None
    catalogue: Catalogue | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What a rule found.

    Attributes:
        why: One sentence about these lines; free of values from documents.
        fix: The code to paste.
    """

    first: int
    last: int
    why: str
    fix: str


Look = Callable[[Case], Iterator[Fault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of governance.

    Attributes:
        title: What it finds.
        reason: Why that is wrong.
        bad: A script in which it finds something.
        good: The same purpose, in which no rule does.
    """

    code: str
    title: str
    reason: str
    severity: Severity
    look: Look
    bad: Sample
    good: Sample


RULES: Registry[Rule] = Registry("rule of migrations")


def rule(code: str, *, bad: Sample, good: Sample, severity: Severity = Severity.ERROR) -> Callable[[Look], Look]:
    """Register the decorated function as the rule *code*: its docstring says what it finds, and then why."""

    def register(look: Look) -> Look:
        title, _, reason = (inspect.getdoc(look) or "").partition("\n\n")
        RULES.add(
            code,
            Rule(
                code=code,
                title=title.removesuffix("."),
                reason=" ".join(reason.split()),
                severity=severity,
                look=look,
                bad=bad,
                good=good,
            ),
        )
        return look

    return register


def at(place: ast.AST | Operation | None, why: str, fix: str) -> Fault:
    """Return a fault at *place*; at the first line where there is none."""
    node = place.node if isinstance(place, Operation) else place
    first = getattr(node, "lineno", 1)
    last = first if isinstance(node, ast.FunctionDef) else getattr(node, "end_lineno", first)
    return Fault(first, last, why, textwrap.dedent(fix).strip("\n"))
