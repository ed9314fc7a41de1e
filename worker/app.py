"""The Celery application, and what is asked before it does anything."""

from collections.abc import Callable

from celery import Celery

from compliance.errors import ConfigurationError
from compliance.login import find_login, refuse_excess
from compliance.settings import Settings
from worker import consumer
from worker.celery_tasks import add_tasks
from worker.configuration import configure
from worker.liveness import Gate
from worker.repairs import repair_closed_channels, shorten_pool_exit
from worker.services import PerProcess, Services
from worker.signals import StopFlag, connect_signals
from worker.signature import Keyring
from worker.tasks import JOBS


def check_rights(services: Services) -> None:
    """Refuse to work as a user that could alter the audit log, or with keys for tasks that do not exist."""
    refuse_unknown_tasks(services.keyring)
    refuse_excess(find_login(services.databases))


def refuse_unknown_tasks(keyring: Keyring | None) -> None:
    """Return if every task that *keyring* names exists.

    Raises:
        ConfigurationError: With the known ones.
    """
    known = {kind.task for kind in JOBS.values()}
    if keyring is not None and not keyring.named_tasks <= known:
        raise ConfigurationError(
            f"COMPLIANCE_SIGNING_KEYS: tasks: one does not exist; known: {', '.join(sorted(known))}"
        )


def create_app(
    settings: Settings,
    *,
    broker_url: str,
    build: Callable[[Celery, StopFlag], Services],
    check: Callable[[Services], None] = check_rights,
) -> Celery:
    """Return the application; it connects to nothing until it is used.

    Args:
        settings: The settings.
        broker_url: Where messages are.
        build: Makes the services of one process.
        check: Asked before the first of them is used.
    """
    repair_closed_channels()
    shorten_pool_exit()
    consumer.read_whatever_comes()
    app = Celery("compliance", set_as_current=False)
    configure(app, settings, broker_url=broker_url)
    stop = StopFlag()
    add_tasks(app, PerProcess(lambda: build(app, stop), check=check))
    connect_signals(app, settings, stop=stop, gate=Gate(lambda: _look(build(app, stop), check)))
    return app


def _look(services: Services, check: Callable[[Services], None]) -> None:
    with services.databases.client:  # closed again before the pool forks
        check(services)
