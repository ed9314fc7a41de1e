"""How far a log was pruned: below its boundary entries may be gone, for a signed entry of the log says so."""

from compliance.audit.log import LENIENT
from compliance.audit.signed import find_fault
from compliance.audit.trust import Trust
from compliance.mongo import Databases, driver_errors
from compliance.roles import AUDIT_LOG

PRUNED = "log.pruned"


def find_boundary(databases: Databases, log: str, trust: Trust) -> int:
    """Return the index of *log* below which entries may be gone, 0 where none are; a read-only operation.

    Only entries that a known writer signed count: anybody who may write to the database could add others.
    """
    entries = databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
    with driver_errors():
        found = entries.find({"entity_type": "log", "entity_id": log, "action": PRUNED})
        signed = [document["details"]["below"] for document in found if find_fault(document, trust) is None]
    return max(signed, default=0)
