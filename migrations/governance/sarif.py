"""Findings as SARIF 2.1.0, which code hosts and editors show beside the lines.

Source: OASIS SARIF version 2.1.0, sections 3.14 (run), 3.27 (result), 3.35 (suppression), 3.49 (reportingDescriptor).
"""

from collections.abc import Callable, Sequence
from typing import Any

from migrations.governance.lint import Violation
from migrations.governance.rule import RULES, Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(violations: Sequence[Violation], *, place: Callable[[str], str]) -> dict[str, Any]:
    """Return the log of one run over all rules.

    Args:
        violations: What was found; what is allowed is in it as suppressed.
        place: Returns the URI reference of a file of the folder.
    """
    codes = list(RULES)
    driver = {"name": "compliance migrate lint", "rules": [_descriptor(rule) for rule in RULES.values()]}
    results = [_result(violation, codes.index(violation.rule), place) for violation in violations]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _descriptor(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"Instead:\n\n{rule.good.source}"},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(violation: Violation, index: int, place: Callable[[str], str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": violation.rule,
        "ruleIndex": index,
        "level": violation.severity.value,
        "message": {"text": f"{violation.why}\n\n{violation.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": place(violation.file)},
                    "region": {"startLine": violation.line},
                }
            }
        ],
    }
    if violation.allowed is not None:
        found["suppressions"] = [{"kind": "inSource", "justification": violation.allowed}]
    return found
