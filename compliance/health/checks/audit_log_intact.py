"""The audit log is what was declared, and what was sealed in the last day is whole; a schedule verifies all of it."""

from datetime import datetime, timedelta

from compliance.audit.head import find_note
from compliance.audit.seals import Seals
from compliance.audit.verification import verify_log
from compliance.errors import ConfigurationError, IntegrityError, InvalidProof
from compliance.health.check import CHECKS, Finding, Scope

LOOKED_BACK = timedelta(days=1)


def audit_log_intact(scope: Scope) -> Finding:
    """Verify what came since the last checkpoint that is a day old; say so where the key of the log is not known.

    Where no such checkpoint is to be believed, everything is verified, and the report says which is not.
    """
    now = scope.databases.server_time()
    try:
        since = _find_start(scope, before=now - LOOKED_BACK)
        report = verify_log(scope.databases, scope.trust, now=now, since=since)
    except (ConfigurationError, IntegrityError) as error:
        return Finding(problems=(str(error),))
    return Finding(problems=tuple(map(str, report.findings)), looked_at=report.entries)


def _find_start(scope: Scope, *, before: datetime) -> bytes | None:
    try:
        return find_note(Seals(scope.databases), scope.trust, before=before)
    except InvalidProof:
        return None


CHECKS.add("audit_log_intact", audit_log_intact)
