"""The audit log is what was declared, and what was sealed in the last day is whole; a schedule verifies all of it."""

from datetime import timedelta

from compliance.audit.head import find_note
from compliance.audit.seals import Seals
from compliance.audit.verification import verify_log
from compliance.errors import ConfigurationError, IntegrityError
from compliance.health.check import CHECKS, Finding, Scope

LOOKED_BACK = timedelta(days=1)


def audit_log_intact(scope: Scope) -> Finding:
    """Verify what came since the last checkpoint that is a day old; say so where the key of the log is not known."""
    now = scope.databases.server_time()
    try:
        since = find_note(Seals(scope.databases), scope.trust, before=now - LOOKED_BACK)
        report = verify_log(scope.databases, scope.trust, now=now, since=since)
    except (ConfigurationError, IntegrityError) as error:
        return Finding(problems=(str(error),))
    return Finding(problems=tuple(map(str, report.findings)), looked_at=report.entries)


CHECKS.add("audit_log_intact", audit_log_intact)
