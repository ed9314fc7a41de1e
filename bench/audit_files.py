"""Verify one segment and print what it took, as JSON: the process that ``bench.audit`` measures.

It imports as little as an auditor's program would, for the processes that it starts import the same.
"""

import json
import resource
import sys
import time
from pathlib import Path

from compliance.audit.checkpoint import Policy
from compliance.audit.keys import parse_vkey
from compliance.audit.segment import verify_segment


def main() -> None:
    """Verify the folder of the first argument with the key of the second."""
    path, key = Path(sys.argv[1]), parse_vkey(sys.argv[2])
    began = time.perf_counter()
    report = verify_segment(path, policy=Policy(origin=key.name, keys=(key,)), processes=2)
    took = time.perf_counter() - began
    own, others = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found = {"seconds": took, "peak_kb": own + others, "entries": report.entries, "found": report.found}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
