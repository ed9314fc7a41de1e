"""``compliance up``, ``demo``, ``watcher`` and ``reconciler``."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import structlog
import typer
from prometheus_client.registry import Collector

from compliance.login import find_login, refuse_excess
from compliance.roles import Role
from compliance.settings import Settings
from migrations.online.follow import follow_all
from migrations.refused import Rescue
from worker.alert import alert_writes_refused
from worker.cli.runtime import EnvOption, runtime
from worker.demo.run import run_demo
from worker.liveness import Heartbeat
from worker.sealing import build_anchors, build_sealing
from worker.services import Services
from worker.tasks import JOBS
from worker.telemetry import configure_logging, configure_sentry
from worker.telemetry.exposition import serve_watcher
from worker.telemetry.ledger import LedgerCollector, TokenAges
from worker.up import running_system
from worker.watcher import watch_all

log = structlog.get_logger(__name__)


def up(
    ctx: typer.Context,
    flower_port: Annotated[int, typer.Option(min=0, max=65535, help="Where Flower listens.")] = 5555,
    env: EnvOption = None,
) -> None:
    """Run everything in the foreground: the servers that no variable names, then all processes."""
    stop = _stop_on_signals()
    found = runtime(ctx)
    with running_system(found.addresses(env), environ=found.environ, flower_port=flower_port, say=_say) as system:
        system.introduce(_say)
        while not stop.wait(1):
            system.check(_say)
        _say("stopping: each process finishes its present batch")


def demo(
    ctx: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the made-up people.")] = 7,
) -> None:
    """Show the whole product on servers and data of its own: takes a minute, touches nothing else."""
    stop = _stop_on_signals()
    found = runtime(ctx)
    run_demo(found.load(None), environ=found.environ, say=_say, seed=seed, keep=keep, stop=stop)


def watcher(ctx: typer.Context, env: EnvOption = None) -> None:
    """Follow the change stream and ask for follow-up health checks; one process per application is enough."""
    with _process(ctx, Role.SEALER, env) as process:
        services, addresses, ages = process.services, runtime(ctx).addresses(env), TokenAges()
        sealing, anchors = build_sealing(addresses, services), build_anchors(services)
        with _served(services.settings, LedgerCollector(services.databases, JOBS), ages):
            watch_all(
                services,
                process.stop.is_set,
                heartbeat=process.heartbeat,
                ages=ages,
                sealing=sealing,
                anchors=anchors,
                places=addresses.watch_places(),
            )


def reconciler(ctx: typer.Context, env: EnvOption = None) -> None:
    """Keep online migrations in step, and let writes in that a dead one refuses; one per application is enough."""
    with _process(ctx, Role.MIGRATOR, env) as process:
        services = process.services
        rescue = Rescue(
            databases=services.databases,
            clock=services.clock,
            actor="reconciler",
            length=services.settings.lease,
            should_stop=process.stop.is_set,
            alarm=alert_writes_refused,
            told=lambda line: log.warning("rescue.done", line=line),
        )
        follow_all(
            services.databases,
            clock=services.clock,
            actor="reconciler",
            length=services.settings.lease,
            should_stop=process.stop.is_set,
            told=lambda line: log.warning("reconcile.interrupted", line=line),
            on_look=process.heartbeat.beat,
            beside=rescue.look,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """A process of ours that goes on until a signal ends it."""

    stop: threading.Event
    services: Services
    heartbeat: Heartbeat


@contextmanager
def _process(ctx: typer.Context, role: Role, profile: str | None) -> Iterator[_Process]:
    """Be a process that connects as *role* for the block, with log, Sentry and heartbeat."""
    stop, found = _stop_on_signals(), runtime(ctx)
    settings = found.load(profile)
    with found.services(role, profile=profile) as services:
        configure_logging(settings.log_level)
        configure_sentry(settings)
        refuse_excess(find_login(services.databases))
        heartbeat = Heartbeat(settings.heartbeat_file)
        heartbeat.begin()
        try:
            yield _Process(stop=stop, services=services, heartbeat=heartbeat)
        finally:
            heartbeat.end()


@contextmanager
def _served(settings: Settings, *readings: Collector) -> Iterator[None]:
    if settings.metrics_port is None:
        yield
        return
    end = serve_watcher(settings.metrics_host, settings.metrics_port, readings, kinds=JOBS)
    try:
        yield
    finally:
        end()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set; the second signal, too, only sets it."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
