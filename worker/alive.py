"""Whether a process still works: ``python -m worker.alive FILE`` looks how old its heartbeat file is.

For health checks that run every few seconds: it imports nothing but the standard library. Exit code 0: fresh; 3: stale
or not there, so the process is not ready, hangs, or has ended.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MAX_AGE_SECONDS = 30.0
STALE = 3


def age_seconds(path: Path) -> float | None:
    """Return how long ago *path* was touched, None where it is not there."""
    try:
        touched = path.stat().st_mtime
    except OSError:
        return None
    return abs(time.time() - touched)  # a clock that was set back does not make it fresh for ever


def main(arguments: Sequence[str] | None = None) -> int:
    """Say how old the file is, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.alive",
        description="Whether a process still works, by the file that COMPLIANCE_HEARTBEAT_FILE names for it.",
        epilog="Example: python -m worker.alive /tmp/alive --max-age 30",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="the heartbeat file")
    parser.add_argument("--max-age", type=float, default=MAX_AGE_SECONDS, metavar="SECONDS", help="30 by default")
    given = parser.parse_args(arguments)
    age = age_seconds(given.file)
    if age is None:
        sys.stderr.write("not alive: there is no heartbeat file; the process is not ready, or has ended\n")
        return STALE
    if age > given.max_age:
        sys.stderr.write(f"not alive: the last heartbeat is {age:.0f} s old\n")
        return STALE
    sys.stdout.write(f"alive: the last heartbeat is {age:.0f} s old\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
