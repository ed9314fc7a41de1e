"""Decide by the rules of governance whether scripts may run here, and tell what their comments allow."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compliance.audit.entry import Entry
from compliance.datamap.model import DataMap
from compliance.errors import GovernanceViolation
from migrations.governance import RULES, Violation, allowances, lint, parse_script
from migrations.governance.allowance import Allowance
from migrations.revision import Revision

SHOWN = 5
MOST_REASONS, LONGEST_REASON = 50, 200  # an entry holds less than 64 kB
WAY_OUT = "`compliance migrate lint` shows what to write instead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Which scripts may run.

    Attributes:
        is_strict: Whether what the rules call an error refuses, as in production; elsewhere it is told.
        off: Codes of rules that do not count here.
    """

    is_strict: bool = False
    data_map: DataMap | None = None
    off: frozenset[str] = frozenset()

    def check(self, pending: Sequence[Revision], folder: Sequence[Revision], report: Callable[[str], None]) -> None:
        """Look at what is *pending* in *folder* by the rules, and *report* what they find.

        Raises:
            GovernanceViolation: When this is production and the rules find an error that is not allowed; nothing ran.
        """
        if not pending:
            return
        scripts = [parse_script(f"{revision.name}.py", revision.source) for revision in folder]
        files = {f"{revision.name}.py" for revision in pending}
        found = lint(scripts, data_map=self.data_map, off=self.off, files=files)
        refused = [violation for violation in found if violation.is_refused]
        if refused and self.is_strict:
            raise GovernanceViolation(f"the rules of migrations refuse {_name(refused)}; {WAY_OUT}")
        told = [violation for violation in found if violation.allowed is None]
        if told:
            report(f"the rules of migrations warn of {_name(told)}; {WAY_OUT}")


EVERYTHING = Admission()


def _name(found: Sequence[Violation]) -> str:
    shown = "; ".join(f"{one.file}:{one.line} {one.rule} {one.why}" for one in found[:SHOWN])
    return f"{shown}; and {len(found) - SHOWN} more" if len(found) > SHOWN else shown


def allowance_entries(revision: Revision, *, like: Entry) -> tuple[Entry, ...]:
    """Return the audit entry that tells which rules the comments of *revision* allow to be broken; none without any.

    Args:
        like: The entry of the beginning: who, when and which event.
    """
    found = [one for one in allowances(revision.source.decode()) if one.rule in RULES and one.has_reason]
    if not found:
        return ()
    entry = Entry(
        event=like.event,
        entity_type=like.entity_type,
        entity_id=like.entity_id,
        action="migration.lint_allowed",
        created_at=like.created_at,
        performed_by=like.performed_by,
        details={
            **like.details,
            "rules": dict(Counter(one.rule for one in found)),
            "reasons": [f"{one.rule} {_reason(one)}" for one in found[:MOST_REASONS]],
        },
    )
    return (entry,)


def _reason(allowance: Allowance) -> str:
    """Return the reason as an audit entry can hold it; the script itself is in the history."""
    return allowance.reason[:LONGEST_REASON].replace("@", "(at)")
