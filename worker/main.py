"""The composition root: the one place of this package that reads the environment.

Celery and the kinds of work are imported by who needs them, a worker or a command that rings: half of the time in which
any other command starts would be theirs.
"""

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compliance.errors import ComplianceError, ExitCode
from compliance.roles import Role
from compliance.settings import Settings, load_settings
from worker.addresses import Addresses
from worker.cli import Runtime, build_cli
from worker.services import Publish, Services, build_services

if TYPE_CHECKING:
    from celery import Celery

    from worker.signals import StopFlag

FLOWER_CONFIG = Path(__file__).with_name("flowerconfig.py")
INTERRUPTED = 130


def settings(profile: str | None = None) -> Settings:
    """Return the settings of this process."""
    return load_settings(os.environ, profile=profile)  # noqa: TID251 - the composition root


def application(addresses: Addresses) -> "Celery":
    """Return the Celery application over *addresses*."""
    from worker.app import create_app  # noqa: PLC0415 - see the module's docstring
    from worker.doorbell import publisher  # noqa: PLC0415
    from worker.monitor import monitor_of  # noqa: PLC0415
    from worker.schedule import load_schedules  # noqa: PLC0415

    def build(app: "Celery", stop: "StopFlag") -> Services:
        services = build_services(addresses, Role.WORKER, publish=publisher(app), should_stop=stop)
        return replace(services, monitor=lambda job: monitor_of(job, load_schedules(addresses.settings.schedules)))

    return create_app(addresses.settings, broker_url=addresses.redis_url(), build=build)


def doorbell(addresses: Addresses) -> Publish:
    """Return what rings for a job that is in the ledger."""
    from worker.doorbell import publisher  # noqa: PLC0415 - see the module's docstring

    return publisher(application(addresses))


def celery_application() -> "Celery":
    """Return the application that ``celery -A worker`` runs; a wrong environment ends the process with one line."""
    from worker.schedule import load_schedules  # noqa: PLC0415 - see the module's docstring

    os.environ.setdefault("FLOWER_CONF", str(FLOWER_CONFIG))  # noqa: TID251 - how Flower is told
    try:
        addresses = Addresses(settings())
        load_schedules(addresses.settings.schedules)  # before any work, and before the pool forks
        return application(addresses)
    except ComplianceError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(int(error.exit_code)) from None


def main() -> None:
    """Run the ``compliance`` command."""
    environ = os.environ  # noqa: TID251 - the composition root
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows fewer letters is no reason to fail
    runtime = Runtime(load=settings, doorbell=doorbell, environ=environ)
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
