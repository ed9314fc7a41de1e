"""Governance of migrations: coded rules over scripts, each with the code to paste instead. Nothing here does I/O."""

from migrations.governance import rules as _rules
from migrations.governance.allowance import Allowance, allowances
from migrations.governance.catalogue import Catalogue
from migrations.governance.lint import Violation, lint
from migrations.governance.rule import RULES, Rule, Severity
from migrations.governance.script import Script, parse_script

del _rules

__all__ = [
    "RULES",
    "Allowance",
    "Catalogue",
    "Rule",
    "Script",
    "Severity",
    "Violation",
    "allowances",
    "lint",
    "parse_script",
]
