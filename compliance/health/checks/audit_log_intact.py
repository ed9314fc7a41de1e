"""The audit log has its validator and its indexes, nothing that could expire entries, and unchanged bytes."""

from compliance.audit.log import AuditLog
from compliance.audit.schema import INDEXES, VALIDATOR
from compliance.audit.verify import verify
from compliance.health.check import CHECKS, Finding, Scope
from compliance.mongo import driver_errors
from compliance.roles import AUDIT_LOG


def audit_log_intact(scope: Scope) -> Finding:
    """Compare the options of the collection with ours and recompute the hash of every entry."""
    problems: list[str] = []
    with driver_errors():
        listed = list(scope.databases.audit.list_collections(filter={"name": AUDIT_LOG}))
        indexes = scope.databases.audit[AUDIT_LOG].index_information() if listed else {}
    if not listed:
        problems.append(f"{AUDIT_LOG} is missing")
    elif listed[0]["options"].get("validator") != VALIDATOR:
        problems.append(f"{AUDIT_LOG} has another validator")
    problems += [f"index {name} of {AUDIT_LOG} is missing" for name in INDEXES if listed and name not in indexes]
    problems += [f"index {name} expires entries" for name, index in indexes.items() if "expireAfterSeconds" in index]
    report = verify(AuditLog(scope.databases).all(), scope.trust)
    return Finding(problems=(*problems, *report.findings), looked_at=report.entries)


CHECKS.add("audit_log_intact", audit_log_intact)
