"""The composition root of the ``compliance`` command.

Celery and the kinds of work are imported by a command that rings: half of the time in which any other command starts
would be theirs.
"""

import io
import os
import sys

from compliance.errors import ComplianceError, ExitCode
from worker.addresses import Addresses
from worker.cli import Runtime, build_cli
from worker.environment import settings
from worker.services import Publish

INTERRUPTED = 130


def ring(addresses: Addresses) -> Publish:
    """Return what rings for a job that is in the ledger."""
    from worker.application import doorbell  # noqa: PLC0415 - see the module's docstring

    return doorbell(addresses)


def main() -> None:
    """Run the ``compliance`` command."""
    environ = os.environ  # noqa: TID251 - the composition root
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows fewer letters is no reason to fail
    runtime = Runtime(load=settings, doorbell=ring, environ=environ)
    try:
        build_cli()(obj=runtime)
    except ComplianceError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if environ.get("COMPLIANCE_LOG_LEVEL") == "DEBUG":
            raise
        sys.stderr.write(
            f"unexpected error: {type(error).__name__}; this is a bug, please report it "
            "(COMPLIANCE_LOG_LEVEL=DEBUG shows where)\n"
        )
        sys.exit(int(ExitCode.UNEXPECTED))


if __name__ == "__main__":
    main()
