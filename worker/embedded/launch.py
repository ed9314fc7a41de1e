"""Become a server that dies with its supervisor: ``launch.py SUPERVISOR_PID PID_FILE COMMAND...``.

Runs as a script in the new process, because code between fork and exec of a process with threads can hang. The
process id stays the same, so the id is on disk before the server runs.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main(supervisor: str, pid_file: str, *command: str) -> None:
    """Arm the parent-death signal (Linux), note the process id and execute *command*."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit("the supervisor died before its server ran")
    Path(pid_file).write_text(f"{os.getpid()}\n", encoding="ascii")
    os.execv(command[0], command)  # noqa: S606 - this is what it is for


if __name__ == "__main__":
    main(*sys.argv[1:])
