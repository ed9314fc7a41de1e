"""One job per slot: however many look at once, however long nobody did, whatever a worker's clock says."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import Deployment
from faults import Died, mortal
from structlog.testing import capture_logs
from waiting import wait_until

from compliance.errors import ConfigurationError, RequestConflict
from compliance.mongo import Databases
from compliance.roles import Role
from compliance.settings import SCHEDULES as PACKAGED
from worker import due
from worker.due import find_standings, request_due
from worker.intake import submit
from worker.resume import sweep
from worker.schedule import Schedule, load_schedules
from worker.services import Services, build_services
from worker.tasks import JOBS

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Skewed:
    """A clock that is wrong."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by  # noqa: TID251 - a wrong clock is one of its own

    def sleep(self, duration: timedelta) -> None:
        raise NotImplementedError


def schedule(**changes: Any) -> Schedule:
    every: dict[str, Any] = {} if "cron" in changes else {"every": {"hours": 1}}
    values = {"name": "beat", "description": "A test.", "task": "compliance.audit.heartbeat"} | every
    return Schedule.model_validate(values | changes)


def jobs(deployment: Deployment) -> list[str]:
    return sorted(job["_id"] for job in deployment.admin.compliance["jobs"].find({"origin": "schedule"}))


def begin(deployment: Deployment, *schedules: Schedule, ago: timedelta = 30 * HOUR) -> None:
    """Let the schedules be known for some time, in which no beat and no worker ran."""
    request_due(schedules, deployment.services())
    since = deployment.admin.server_time() - ago
    deployment.admin.compliance["schedules"].update_many({}, {"$set": {"since": since}})


def newest_slot(deployment: Deployment) -> str:
    return f"{deployment.admin.server_time().replace(minute=0):schedule:beat:%Y-%m-%dT%H:%M:00Z}"


def test_a_new_schedule_begins_with_its_next_slot(deployment: Deployment) -> None:
    first, second = (request_due([schedule()], deployment.services()) for _ in range(2))
    (standing,) = find_standings([schedule()], deployment.worker).values()

    assert (first, second, jobs(deployment)) == ([], [], [])
    assert standing.last_slot is None
    assert abs(standing.since - deployment.admin.server_time()) < timedelta(minutes=1)


def test_of_many_missed_slots_one_job_comes(deployment: Deployment) -> None:
    begin(deployment, schedule())
    (job,) = request_due([schedule()], deployment.services())
    again = request_due([schedule()], deployment.services())

    assert again == []
    assert jobs(deployment) == [newest_slot(deployment)] == [job.request_id]


@pytest.mark.parametrize(("changes", "priority"), [({}, 5), ({"priority": 0}, 0), ({"priority": 9}, 9)])
def test_the_job_of_a_slot_is_as_urgent_as_its_schedule(
    deployment: Deployment, changes: dict[str, Any], priority: int
) -> None:
    begin(deployment, schedule(**changes))
    (job,) = request_due([schedule(**changes)], deployment.services())

    assert job.terms.priority == priority


def test_many_sweeps_at_once_record_one_job_per_slot(deployment: Deployment) -> None:
    listed = [schedule(name=f"beat-{number}") for number in range(4)]
    begin(deployment, *listed)

    with ExitStack() as cleanup, ThreadPoolExecutor(8) as pool:
        workers = [others(deployment, cleanup) for _ in range(8)]
        asked = [job for found in pool.map(lambda services: request_due(listed, services), workers) for job in found]

    assert len(asked) == len({job.request_id for job in asked}) == len(listed)
    assert jobs(deployment) == sorted(job.request_id for job in asked)


def others(deployment: Deployment, cleanup: ExitStack) -> Services:
    """The services of another process."""
    services = build_services(deployment.addresses, Role.WORKER, publish=deployment.published.append)
    cleanup.callback(services.databases.client.close)
    return services


@pytest.mark.parametrize("skew", [timedelta(minutes=5), -timedelta(minutes=5), timedelta(days=400)])
def test_a_worker_with_a_wrong_clock_asks_for_the_same_slots(deployment: Deployment, skew: timedelta) -> None:
    services = replace(deployment.services(), clock=Skewed(skew))
    often = schedule(every={"minutes": 1})
    request_due([often], services)
    nothing_yet = request_due([schedule(every={"days": 300})], services)
    (standing,) = find_standings([often], deployment.worker).values()
    begin(deployment, schedule())
    (job,) = request_due([schedule()], services)

    assert nothing_yet == []
    assert abs(standing.since - deployment.admin.server_time()) < timedelta(minutes=1)
    assert job.request_id == newest_slot(deployment)


def test_a_changed_expression_begins_with_its_next_slot(deployment: Deployment) -> None:
    begin(deployment, schedule())
    request_due([schedule()], deployment.services())
    changed = schedule(every={"minutes": 1})
    asked = request_due([changed], deployment.services())
    deployment.admin.compliance["schedules"].update_many({}, {"$set": {"since": datetime(2026, 1, 1, tzinfo=UTC)}})
    later = request_due([changed], deployment.services())

    assert asked == []
    assert len(later) == 1


def test_workers_with_the_old_and_the_new_file_keep_no_slot_from_each_other(deployment: Deployment) -> None:
    old, new = schedule(), schedule(cron="30 * * * *")
    begin(deployment, old, new, ago=HOUR)
    for _ in range(3):
        request_due([old], deployment.services())
        request_due([new], deployment.services())

    assert len(jobs(deployment)) == 2


def test_a_disabled_schedule_lets_its_slots_pass(deployment: Deployment) -> None:
    begin(deployment, schedule())
    disabled = request_due([schedule(enabled=False)], deployment.services())
    enabled = request_due([schedule()], deployment.services())

    assert (disabled, enabled) == ([], [])


@pytest.mark.parametrize("committed", [True, False])
def test_a_sweep_that_dies_leaves_one_job_for_its_slot(deployment: Deployment, *, committed: bool) -> None:
    begin(deployment, schedule())
    dying = replace(deployment.services(), databases=mortal(deployment.worker, at=1, committed=committed))
    with pytest.raises(Died):
        request_due([schedule()], dying)
    asked = request_due([schedule()], deployment.services())

    assert len(asked) == (0 if committed else 1)
    assert jobs(deployment) == [newest_slot(deployment)]
    assert sweep(deployment.services()) == 1


def test_a_quiet_sweep_writes_nothing(deployment: Deployment) -> None:
    listed = load_schedules(PACKAGED)
    begin(deployment, *listed, ago=timedelta())
    before = rows(deployment.admin)
    operations = Written(deployment)
    for _ in range(5):
        request_due(listed, deployment.services())

    assert rows(deployment.admin) == before
    assert operations.since() == 0


class Written:
    """Counts what was written to the databases of ours."""

    def __init__(self, deployment: Deployment) -> None:
        self._own = deployment.admin.compliance.name
        self._oplog = deployment.admin.client["local"]["oplog.rs"]
        self._before = self._count()

    def since(self) -> int:
        return self._count() - self._before

    def _count(self) -> int:
        return self._oplog.count_documents({"ns": {"$regex": f"^{self._own}[.]"}})


def rows(admin: Databases) -> list[dict[str, Any]]:
    return list(admin.compliance["schedules"].find({}, sort={"_id": 1}))


def test_a_request_id_that_somebody_else_used_costs_one_slot_and_stops_no_other(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = schedule(name="other")
    begin(deployment, schedule(), other)
    values = {"package": "p", "collection": "users"}
    slot, services = newest_slot(deployment), deployment.services()
    submit(JOBS["import.run"], values, request_id=slot, origin="schedule", services=services)
    reported: list[BaseException] = []
    monkeypatch.setattr(due, "report_error", lambda error, **_: reported.append(error))
    with capture_logs() as logs:
        asked = [job.request_id for job in request_due([schedule(), other], deployment.services())]
        again = request_due([schedule(), other], deployment.services())

    assert (len(asked), again) == (1, [])
    assert [line["error"] for line in logs if line["event"] == "schedule.refused"] == ["RequestConflict"]
    (entry,) = deployment.entries(action="schedule.refused")
    assert (entry["request_id"], entry["outcome"], entry["details"]) == (slot, "denied", {"code": "RequestConflict"})
    assert [type(error) for error in reported] == [RequestConflict]


def test_a_slot_that_is_refused_leaves_a_note_with_the_reason(deployment: Deployment) -> None:
    wrong = schedule(task="compliance.erasure.request", payload={"subject_id": "nonsense"})
    begin(deployment, wrong)
    asked = request_due([wrong], deployment.services())
    (note,) = deployment.admin.compliance["jobs"].find()

    assert asked == []
    assert (note["_id"], note["state"], note["origin"]) == (newest_slot(deployment), "rejected", "schedule")
    assert note["error"]["message"].startswith("subject_id: expected an ObjectId")
    assert [entry["outcome"] for entry in deployment.entries(action="schedule.refused")] == ["denied"]


def test_the_sweep_publishes_what_a_schedule_asks_for(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "schedules.yaml"
    entry = schedule().model_dump(exclude_unset=True)
    path.write_text(yaml.safe_dump({"apiVersion": "schedules/v1", "schedules": [entry]}))
    here = deployment.with_settings(schedules=path)
    first = sweep(here.services())
    begin(here, schedule())
    second = sweep(here.services())

    assert (first, second) == (0, 1)
    assert [job.request_id for job in here.published] == [newest_slot(deployment)]


def test_a_wrong_file_keeps_back_no_job_that_is_recorded(deployment: Deployment, tmp_path: Path) -> None:
    here = deployment.with_settings(schedules=tmp_path / "nowhere.yaml")
    submit(JOBS["audit.verify"], {}, request_id="r-1", origin="test", services=here.services())
    with pytest.raises(ConfigurationError):
        sweep(here.services())

    assert [job.request_id for job in here.published] == ["r-1"]


def test_a_beat_of_the_audit_log_is_an_entry(deployment: Deployment) -> None:
    job = deployment.run("audit.heartbeat", {})
    (entry,) = deployment.entries(action="audit.heartbeat")

    assert job.state == "done"
    assert (entry["entity_id"], entry["request_id"]) == (deployment.admin.audit.name, "r-1")


def test_slots_come_as_time_goes_by(deployment: Deployment) -> None:
    often = schedule(every={"seconds": 1})
    seen: list[str] = []

    def three_came() -> bool:
        seen.extend(job.request_id for job in request_due([often], deployment.services()))
        return len(seen) >= 3

    wait_until(three_came, timeout=20, what="three slots")

    assert seen == sorted(set(seen)) == jobs(deployment)
