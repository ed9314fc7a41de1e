"""How far a log was pruned: below its boundary entries may be gone, for a signed entry of the log says so."""

from compliance.audit.stored import find_stored_fault, read_stored, stored_entries
from compliance.audit.trust import Trust
from compliance.mongo import Databases, driver_errors

PRUNED = "log.pruned"


def find_boundary(databases: Databases, log: str, trust: Trust) -> int:
    """Return the index of *log* below which entries may be gone, 0 where none are; a read-only operation.

    Only entries that a known writer signed count: anybody who may write to the database could add others.
    """
    entries = stored_entries(databases)
    with driver_errors():
        found = list(entries.find({"entity_type": "log", "entity_id": log, "action": PRUNED}))
    signed = [read_stored(raw)["details"]["below"] for raw in found if find_stored_fault(raw, trust) is None]
    return max(signed, default=0)
