"""The commands of docs/operations.md are commands that Celery accepts, and leave no queue out."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.worker import worker
from documented import WORKER, compose_override, section, worker_arguments

from compliance.settings import Settings
from worker.broker import broker_settings
from worker.processes import PROCESSES
from worker.routing import QUEUES


@pytest.fixture
def parser() -> Iterator[Any]:
    """Celery's own parser of ``celery worker``; unknown options end it."""
    with Celery("any", broker="memory://", set_as_current=False) as app:
        context = CLIContext(app=app, no_color=True, workdir=None)
        yield lambda arguments: worker.make_context("worker", list(arguments), obj=context).params


def test_the_workers_for_separate_queues_take_every_queue_once(parser: Any) -> None:
    parsed = [parser(arguments) for arguments in worker_arguments()]
    taken = [queue for found in parsed for queue in found["queues"]]

    assert sorted(taken) == sorted(QUEUES)
    assert len({found["hostname"] for found in parsed}) == len(parsed)
    assert all(found["concurrency"] for found in parsed)


def test_bulk_is_bound_in_memory_and_migrations_run_one_at_a_time(parser: Any) -> None:
    by_queue = {found["queues"][0]: found for found in map(parser, worker_arguments())}

    assert by_queue["compliance.bulk"]["max_memory_per_child"] == 1024 * 1024
    assert by_queue["compliance.migration"]["concurrency"] == 1


def test_the_compose_override_starts_workers_that_leave_only_migrations_out(parser: Any) -> None:
    commands = [service["command"] for service in compose_override()["services"].values()]
    start = len(PROCESSES["worker"])
    parsed = [parser(command[start:]) for command in commands]

    assert [tuple(command[:start]) for command in commands] == [PROCESSES["worker"]] * len(commands)
    assert sorted(queue for found in parsed for queue in found["queues"]) == sorted(
        set(QUEUES) - {"compliance.migration"}
    )


def test_the_systemd_unit_starts_the_worker_of_the_table(parser: Any) -> None:
    (line,) = [line for line in section("## Queues").splitlines() if line.startswith("ExecStart=")]
    written = line.partition(f"/{WORKER}")[2].replace("%i", "erasure").replace("%H", "host.example")
    arguments = written.replace("$WORKER_OPTIONS", "-Q compliance.erasure -c 4").split()

    assert parser(arguments)["queues"] == ["compliance.erasure"]


def test_every_url_of_the_broker_that_is_documented_is_understood() -> None:
    rows = [line.split("`")[1] for line in section("## The broker").splitlines() if line.startswith("| `")]
    settings = [Settings.model_validate({"REDIS_URL": url, "COMPLIANCE_SENTINEL_MASTER": "main"}) for url in rows]

    assert len(rows) == 5
    assert all(
        broker_settings(url, found)["broker_transport_options"] for url, found in zip(rows, settings, strict=True)
    )
