"""Check a data map: against itself, and against the live database, before anything runs; pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from compliance.datamap.catalogue import Catalogue
from compliance.datamap.lint import ground as _ground
from compliance.datamap.lint import reach as _reach
from compliance.datamap.lint.actions import impossible_actions
from compliance.datamap.lint.rule import RULES, Case, Severity
from compliance.datamap.model import DataMap

__all__ = ["RULES", "Severity", "Violation", "impossible_actions", "lint"]
_ = (_ground, _reach)  # they fill the registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that is wrong, where, and what mends it."""

    code: str
    severity: Severity
    place: str
    why: str
    fix: str


def lint(data_map: DataMap, live: Catalogue) -> Iterator[Violation]:
    """Yield what every rule finds, in the order of the codes; of the database where *live* is not empty."""
    case = Case(data_map, live)
    for code in sorted(RULES):
        rule = RULES[code]
        for fault in rule.look(case):
            yield Violation(code=code, severity=rule.severity, place=fault.place, why=fault.why, fix=fault.fix)
