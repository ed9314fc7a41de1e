"""Look at scripts by every rule."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from compliance.datamap.model import DataMap
from migrations.governance.allowance import Allowance
from migrations.governance.catalogue import Catalogue
from migrations.governance.rule import RULES, Case, Fault, Rule, Severity
from migrations.governance.script import Script

UNREADABLE = "MX001"
NOT_ALLOWABLE = frozenset({"MX000", UNREADABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule, where a script breaks it, and what to write instead.

    Attributes:
        fix: The code to paste.
        allowed: The reason for which the script may, by its comment; None where it may not.
    """

    rule: str
    severity: Severity
    file: str
    line: int
    why: str
    fix: str
    allowed: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it keeps the script out of production."""
        return self.allowed is None and self.severity is Severity.ERROR


def lint(
    scripts: Sequence[Script],
    *,
    data_map: DataMap | None = None,
    catalogue: Catalogue | None = None,
    off: Collection[str] = (),
    files: Collection[str] | None = None,
) -> tuple[Violation, ...]:
    """Return what the rules find in *scripts*, by file and line; each script is seen with those before it.

    Args:
        scripts: Every script of the folder, in any order.
        off: Codes of rules that do not count here.
        files: Names of the files to look at; None for all.
    """
    ordered = sorted(scripts, key=lambda script: script.order)
    found = [
        violation
        for position, script in enumerate(ordered)
        if files is None or script.file in files
        for violation in _look(
            Case(script=script, before=tuple(ordered[:position]), data_map=data_map, catalogue=catalogue)
        )
        if violation.rule not in off
    ]
    return tuple(found)


def _look(case: Case) -> list[Violation]:
    script = case.script
    rules = [RULES[UNREADABLE]] if script.fault else [*RULES.values()]
    found = [_violation(rule, fault, script) for rule in rules for fault in dict.fromkeys(rule.look(case))]
    return sorted(found, key=lambda violation: (violation.line, violation.rule))


def _violation(rule: Rule, fault: Fault, script: Script) -> Violation:
    allowing = _allowing(rule.code, fault, script)
    return Violation(
        rule=rule.code,
        severity=rule.severity,
        file=script.file,
        line=fault.first,
        why=fault.why,
        fix=fault.fix,
        allowed=allowing.reason if allowing else None,
    )


def _allowing(code: str, fault: Fault, script: Script) -> Allowance | None:
    if code in NOT_ALLOWABLE:
        return None
    fitting = (
        allowance
        for allowance in script.allowances
        if allowance.rule == code and allowance.has_reason and allowance.covers(fault.first, fault.last)
    )
    return next(fitting, None)
