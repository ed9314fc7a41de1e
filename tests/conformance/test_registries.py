"""Every entry of every registry, present and future, keeps its promises."""

import inspect
import re
from typing import Any

import pytest

from compliance.health import CHECKS
from compliance.settings import MIGRATIONS
from migrations.discovery import discover
from migrations.revision import Revision
from worker.job import JobKind, Payload
from worker.routing import QUEUES
from worker.tasks import JOBS

REVISIONS = discover(MIGRATIONS)
names = pytest.mark.parametrize("name", sorted(JOBS))
checks = pytest.mark.parametrize("name", sorted(CHECKS))
scripts = pytest.mark.parametrize("revision", REVISIONS, ids=[revision.name for revision in REVISIONS])


def is_documented(thing: Any) -> bool:
    return len((inspect.getdoc(thing) or "").strip()) > len("TODO")


@names
def test_a_job_kind_has_a_task_of_a_group_and_a_verb(name: str) -> None:
    assert JOBS[name].name == name
    assert re.fullmatch(r"compliance\.[a-z]+\.[a-z]+", JOBS[name].task)
    assert JOBS[name].queue in QUEUES


@names
def test_a_job_kind_is_one_module_with_its_function(name: str) -> None:
    work = JOBS[name].work

    assert work.__module__ == f"worker.tasks.{name.replace('.', '_')}"
    assert work.__name__ == name.replace(".", "_")
    assert list(inspect.signature(work).parameters) == ["payload", "run", "services"]


@names
def test_a_job_kind_is_documented(name: str) -> None:
    kind = JOBS[name]

    assert is_documented(kind.work)
    assert is_documented(inspect.getmodule(kind.work))
    assert kind.payload.__doc__ not in (None, Payload.__doc__)


@names
def test_a_payload_is_frozen_takes_nothing_unknown_and_hides_its_input(name: str) -> None:
    config = JOBS[name].payload.model_config

    assert issubclass(JOBS[name].payload, Payload)
    assert (config["frozen"], config["extra"], config["hide_input_in_errors"]) == (True, "forbid", True)


@names
def test_a_payload_has_no_field_that_asks_for_personal_data(name: str) -> None:
    personal = re.compile(r"e?mail|name$|phone|address|birth|ip$")

    assert [field for field in JOBS[name].payload.model_fields if personal.search(field)] == []


@names
def test_a_payload_leaves_the_request_id_to_the_envelope(name: str) -> None:
    assert "request_id" not in JOBS[name].payload.model_fields


def test_every_queue_has_work() -> None:
    assert {kind.queue for kind in JOBS.values()} == set(QUEUES)


def test_no_two_kinds_share_a_task() -> None:
    kinds: list[JobKind] = list(JOBS.values())

    assert len({kind.task for kind in kinds}) == len(kinds)


@checks
def test_a_check_is_one_documented_function_of_its_scope(name: str) -> None:
    check = CHECKS[name]

    assert inspect.getmodule(check).__name__ == f"compliance.health.checks.{name}"  # type: ignore[union-attr]
    assert list(inspect.signature(check).parameters) == ["scope"]
    assert is_documented(check)
    assert is_documented(inspect.getmodule(check))


@scripts
def test_a_migration_says_what_it_does_and_has_a_way_back_or_why_not(revision: Revision) -> None:
    assert revision.summary.endswith((".", ":")) or len(revision.summary) > len("TODO")
    assert (revision.down is None) is bool(revision.irreversible)
    assert re.fullmatch(r"[0-9a-f]{64}", revision.checksum)


@scripts
def test_a_migration_takes_its_context_and_documents_both_ways(revision: Revision) -> None:
    for change in (revision.up, revision.down):
        if change is not None:
            assert list(inspect.signature(change).parameters) == ["ctx"]
            assert is_documented(change)


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = sorted({revision.number for revision in REVISIONS})

    assert numbers == list(range(len(numbers)))
