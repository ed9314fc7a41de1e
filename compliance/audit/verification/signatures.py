"""Whether writers of ours signed what is sealed: whoever holds the key of the log could seal anything.

A signature for each entry would take most of the time of a verification. The last entry of each run of a stream vouches
for those before it, see `Streams.runs`, so one signature is verified for each run.
"""

from compliance.audit.leaf import entry_hash
from compliance.audit.stored import find_stored_fault, read_stored, stored_entries, stored_id
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import Fault, Findings
from compliance.audit.verification.readers import parts
from compliance.audit.verification.streams import Streams
from compliance.mongo import Databases, driver_errors

ASKED = 1_000  # ids of one question


def check_signatures(streams: Streams, findings: Findings, *, databases: Databases, trust: Trust) -> None:
    """Say which runs end in an entry that no known writer signed; one that was pruned meanwhile is left out."""
    for part in parts(streams.runs(), ASKED):
        with driver_errors():
            wanted = [run.last_id for _, run in part]
            found = {stored_id(raw): raw for raw in stored_entries(databases).find({"_id": {"$in": wanted}})}
        for stream, run in part:
            raw = found.get(run.last_id)
            if raw is None:
                continue
            fault = find_stored_fault(raw, trust)
            if fault is not None:
                why = f"it ends numbers {run.first} to {run.last} of stream {stream}, and {fault.partition(' ')[2]}"
                findings.add(Fault.FORGED, f"entry {run.last_id}", why)
            elif entry_hash(read_stored(raw)) != run.last_hash:
                findings.add(Fault.MODIFIED, f"entry {run.last_id}", "it changed while it was verified")
