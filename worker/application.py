"""The composition root of Celery: what ``celery -A worker`` runs, and what a command rings with."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from celery import Celery

from compliance.errors import ComplianceError
from compliance.roles import Role
from worker.addresses import Addresses
from worker.app import create_app
from worker.doorbell import publisher
from worker.environment import settings
from worker.monitor import monitor_of
from worker.schedule import load_schedules
from worker.services import Publish, Services, build_services
from worker.signals import StopFlag

FLOWER_CONFIG = Path(__file__).with_name("flowerconfig.py")


def application(addresses: Addresses) -> Celery:
    """Return the Celery application over *addresses*."""

    def build(app: Celery, stop: StopFlag) -> Services:
        services = build_services(addresses, Role.WORKER, publish=publisher(app), should_stop=stop)
        return replace(services, monitor=lambda job: monitor_of(job, load_schedules(addresses.settings.schedules)))

    return create_app(addresses.settings, broker_url=addresses.redis_url(), build=build)


def doorbell(addresses: Addresses) -> Publish:
    """Return what rings for a job that is in the ledger."""
    return publisher(application(addresses))


def celery_application() -> Celery:
    """Return the application that ``celery -A worker`` runs; a wrong environment ends the process with one line."""
    os.environ.setdefault("FLOWER_CONF", str(FLOWER_CONFIG))  # noqa: TID251 - how Flower is told
    try:
        addresses = Addresses(settings())
        load_schedules(addresses.settings.schedules)  # before any work, and before the pool forks
        return application(addresses)
    except ComplianceError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(int(error.exit_code)) from None
