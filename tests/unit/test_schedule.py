"""The file of schedules: what it may say, and every fault of it at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from compliance.errors import ConfigurationError
from compliance.settings import SCHEDULES
from worker.due import slot_request_id
from worker.job import parse
from worker.schedule import Schedule, load_schedules
from worker.slots import EPOCH, Cron, Every

DEFAULT = load_schedules(SCHEDULES)
VALID: dict[str, Any] = {
    "name": "nightly",
    "description": "A test.",
    "cron": "0 3 * * *",
    "task": "compliance.audit.verify",
}


def load(tmp_path: Path, *entries: Any) -> tuple[Schedule, ...]:
    path = tmp_path / "schedules.yaml"
    path.write_text(yaml.safe_dump({"apiVersion": "schedules/v1", "schedules": list(entries)}))
    return load_schedules(path)


def fault_of(tmp_path: Path, *entries: Any) -> str:
    with pytest.raises(ConfigurationError, match="schedules") as caught:
        load(tmp_path, *entries)
    return str(caught.value)


@pytest.mark.parametrize("schedule", DEFAULT, ids=lambda schedule: schedule.name)
def test_every_default_schedule_asks_for_what_its_task_takes(schedule: Schedule) -> None:
    assert parse(schedule.kind, schedule.payload)
    assert schedule.enabled
    assert schedule.when.next(EPOCH) is not None
    assert len(slot_request_id(schedule, EPOCH)) <= 128


def test_the_default_looks_at_health_audit_due_dates_and_old_jobs() -> None:
    assert {schedule.name: (schedule.task, schedule.payload, str(schedule.when)) for schedule in DEFAULT} == {
        "nightly-health": ("compliance.health.check", {"cause": "schedule"}, "0 3 * * * UTC"),
        "nightly-audit": ("compliance.audit.verify", {}, "30 3 * * * UTC"),
        "nightly-data-retention": ("compliance.retention.sweep", {}, "30 4 * * * UTC"),
        "nightly-retention": ("compliance.jobs.retention", {}, "0 4 * * * UTC"),
        "due-dates": ("compliance.health.check", {"checks": ["overdue"], "cause": "schedule"}, "0 5 * * * UTC"),
        "audit-heartbeat": ("compliance.audit.heartbeat", {}, "every 1 hours"),
    }


def test_an_entry_is_a_cron_expression_in_a_zone_or_an_interval(tmp_path: Path) -> None:
    zoned = VALID | {"cron": " 0  3 * * MON ", "timezone": "Europe/Berlin"}
    often = {name: value for name, value in VALID.items() if name != "cron"} | {
        "name": "often",
        "every": {"minutes": 5},
    }
    first, second = load(tmp_path, zoned, often)

    assert (first.when, second.when) == (Cron("0 3 * * MON", "Europe/Berlin"), Every(5, "minutes"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "compliance.audit.verifi"}, "nightly.task: there is no such task; known: compliance.audit.heartbeat"),
        ({"payload": {"all": True}}, "nightly.payload: compliance.audit.verify: all: Extra inputs are not permitted"),
        ({"task": "compliance.import.run"}, "nightly.payload: compliance.import.run: collection: Field required"),
        (
            {"task": "compliance.health.check", "payload": {"checks": ["overdu"]}},
            "there is no health check of that name",
        ),
        ({"cron": "0 3 * *"}, "nightly.cron: expected five fields"),
        ({"cron": "0 25 * * *"}, "nightly.cron: bad hour"),
        ({"cron": None}, "nightly.every: give either cron or every"),
        ({"every": {"hours": 1}}, "nightly.every: give either cron or every"),
        ({"cron": None, "every": {"hours": 1}, "timezone": "UTC"}, "nightly.timezone: belongs to cron"),
        ({"cron": None, "every": {"hours": 0}}, "nightly.every.hours: Input should be greater than 0"),
        ({"cron": None, "every": {"hours": True}}, "nightly.every.hours: Input should be a valid integer"),
        ({"cron": None, "every": {"hours": 1, "days": 1}}, "nightly.every: Dictionary should have at most 1 item"),
        ({"cron": None, "every": {"weeks": 1}}, "nightly.every.weeks"),
        ({"cron": None, "every": "1h"}, "nightly.every: Input should be a valid dictionary"),
        ({"timezone": "Europe/Atlantis"}, "nightly.timezone: there is no time zone 'Europe/Atlantis'"),
        ({"timezone": "localtime"}, "nightly.timezone: String should match pattern"),
        ({"name": "Nightly run"}, "schedules.0.name: String should match pattern"),
        ({"description": ""}, "nightly.description"),
        ({"priority": 10}, "nightly.priority: Input should be less than or equal to 9"),
        ({"priority": -1}, "nightly.priority: Input should be greater than or equal to 0"),
        ({"priority": "7"}, "nightly.priority: Input should be a valid integer"),
        ({"payload": {"priority": 7}}, "nightly.payload: compliance.audit.verify: priority: Extra inputs are not"),
        ({"enabled": "perhaps"}, "nightly.enabled: Input should be a valid boolean"),
        ({"kwargs": {}}, "nightly.kwargs: Extra inputs are not permitted"),
    ],
)
def test_a_fault_is_named_with_its_schedule_and_field(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    entry = {name: value for name, value in (VALID | changes).items() if value is not None}

    assert says in fault_of(tmp_path, entry)


def test_all_faults_of_all_entries_are_named_at_once(tmp_path: Path) -> None:
    wrong = VALID | {"task": "x", "cron": "x", "timezone": "x", "payload": [], "name": "wrong", "more": 1}
    message = fault_of(tmp_path, wrong, VALID, VALID, {"name": "empty"})

    for fault in (
        *(f"wrong.{field}" for field in ("task", "cron", "timezone", "payload", "more")),
        "nightly stands there 2 times",
        "empty.task",
        "empty.description",
    ):
        assert fault in message, message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schedules: []", "apiVersion: Field required"),
        ("apiVersion: schedules/v2\nschedules: []", "apiVersion: Input should be 'schedules/v1'"),
        ("apiVersion: schedules/v1\nschedules: {a: 1}", "schedules: Input should be a valid tuple"),
        ("apiVersion: schedules/v1\nschedules: [7]", "schedules.0"),
        ("", "file"),
        ("[", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_file_of_schedules_is_one_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=says.replace(".", r"\.")):
        load_schedules(path)


def test_a_file_that_cannot_be_read_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"COMPLIANCE_SCHEDULES: cannot be read \(FileNotFoundError\)"):
        load_schedules(tmp_path / "nowhere.yaml")


def test_a_value_of_the_file_that_may_be_personal_is_not_repeated(tmp_path: Path) -> None:
    secret = "ann.smith@example.org"

    assert secret not in fault_of(
        tmp_path,
        VALID | {"name": secret, "task": secret, "cron": secret, "payload": {"to": secret}, "timezone": secret},
    )


def test_a_file_is_read_once_per_process(tmp_path: Path) -> None:
    first = load(tmp_path, VALID)
    (tmp_path / "schedules.yaml").unlink()

    assert load_schedules(tmp_path / "schedules.yaml") is first
