"""Verify the log of one database and print what it took, as JSON: the process that ``bench.audit`` measures."""

import json
import os
import resource
import time

from compliance.audit.verification import Parallel, verify_log
from compliance.roles import Role
from compliance.settings import load_settings
from worker.addresses import Addresses
from worker.services import connect

PROCESSES = 2


def main() -> None:
    """Verify as the auditor."""
    addresses = Addresses(load_settings(os.environ))
    databases = connect(addresses, Role.AUDITOR, app_name="bench")
    now = databases.server_time()
    began = time.perf_counter()
    parallel = Parallel(addresses.mongodb_uri(Role.AUDITOR), PROCESSES)
    report = verify_log(databases, addresses.trust(), now=now, parallel=parallel)
    took = time.perf_counter() - began
    found = {
        "seconds": took,
        "peak_kb": sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)),
        "entries": report.entries,
        "found": [str(finding) for finding in report.findings[:3]],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
