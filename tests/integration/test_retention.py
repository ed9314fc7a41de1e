"""Finished jobs go when their time is over: exactly those, batch by batch, with an entry for each batch."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from deployment import Deployment
from faults import Died, mortal
from waiting import wait_until

from compliance.jobs.document import new_document
from compliance.jobs.job import RequestId, State
from compliance.jobs.retention import ENDED
from worker.attempt import carry_out
from worker.tasks import JOBS

DAYS = 90
MINE = RequestId("r-1")


def put(deployment: Deployment, name: str, state: str, *, days: float, **changes: Any) -> str:
    """Insert a job that got into *state* so many days ago."""
    then = deployment.admin.server_time() - timedelta(days=days)
    document = new_document(RequestId(name), kind="audit.verify", payload={}, origin="test", now=then)
    ended = {} if state in ("queued", "running") else {"finished_at": then}
    deployment.admin.compliance["jobs"].insert_one(document | {"state": state} | ended | changes)
    return name


def left(deployment: Deployment) -> set[str]:
    return {job["_id"] for job in deployment.admin.compliance["jobs"].find({}, {"_id": 1})}


@pytest.mark.parametrize("state", list(State))
def test_old_jobs_go_when_they_ended_and_nobody_waits_for_them(deployment: Deployment, state: State) -> None:
    put(deployment, "old", state.value, days=DAYS + 1)
    young = put(deployment, "young", state.value, days=DAYS - 1)
    job = deployment.run("jobs.retention", {})

    assert job.state is State.DONE
    assert left(deployment) == {young, MINE} | ({"old"} if state not in ENDED else set())


def test_the_note_of_a_refused_message_goes_too(deployment: Deployment) -> None:
    put(deployment, "note", "rejected", days=DAYS + 1, refused=True)
    deployment.run("jobs.retention", {})

    assert left(deployment) == {MINE}


def test_each_batch_is_an_entry_with_counts_and_no_ids(deployment: Deployment) -> None:
    old = [put(deployment, f"old-{number}", "done", days=DAYS + number) for number in range(1, 8)]
    put(deployment, "old-refused", "rejected", days=200, kind="import.run")
    here = deployment.with_settings(batch_docs=3)
    job = here.run("jobs.retention", {})
    entries = here.entries(action="jobs.purged")

    assert job.result == {"jobs": 8, "batches": 3}
    assert [entry["details"] for entry in sorted(entries, key=lambda entry: -entry["details"]["jobs"])] == [
        {"jobs": 3, "kinds": {"audit.verify": 2, "import.run": 1}, "older_than_days": DAYS},
        {"jobs": 3, "kinds": {"audit.verify": 3}, "older_than_days": DAYS},
        {"jobs": 2, "kinds": {"audit.verify": 2}, "older_than_days": DAYS},
    ]
    assert not [name for name in old if name in str(entries)]


def test_when_nothing_is_old_nothing_is_recorded(deployment: Deployment) -> None:
    job = deployment.run("jobs.retention", {})

    assert job.result == {"jobs": 0, "batches": 0}
    assert deployment.entries(action="jobs.purged") == []


def test_the_period_is_a_setting(deployment: Deployment) -> None:
    put(deployment, "old", "done", days=8)
    deployment.with_settings(job_retention_days=7).run("jobs.retention", {})

    assert left(deployment) == {MINE}


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("committed", [True, False])
def test_a_worker_that_dies_at_any_batch_leaves_the_rest_to_its_successor(
    deployment: Deployment, at: int, *, committed: bool
) -> None:
    here = deployment.with_settings(batch_docs=2, lease=timedelta(seconds=1))
    for number in range(4):
        put(here, f"old-{number}", "cancelled", days=DAYS + 1)
    with pytest.raises(Died):
        here.carry_out("jobs.retention", {}, databases=mortal(here.worker, at=at, committed=committed))
    jobs = here.admin.compliance["jobs"]

    def succeeded() -> bool:
        carry_out(JOBS["jobs.retention"], MINE, services=here.services(), on_progress=lambda _: None)
        return jobs.count_documents({"_id": MINE, "state": "done"}) == 1

    wait_until(succeeded, timeout=20, what="a successor is done")
    entries = here.entries(action="jobs.purged")

    assert left(here) == {MINE}
    assert [entry["details"]["jobs"] for entry in entries] == [2, 2]
    assert (jobs.find_one({"_id": MINE}) or {})["result"] == {"jobs": 4, "batches": 2}


def test_a_worker_that_stops_between_batches_hands_the_rest_back(deployment: Deployment) -> None:
    for number in range(3):
        put(deployment, f"old-{number}", "done", days=DAYS + 1)
    asked: list[bool] = []

    def stops_after_one_batch() -> bool:
        asked.append(True)
        return len(asked) > 1

    here = deployment.with_settings(batch_docs=2)
    first = here.carry_out("jobs.retention", {}, should_stop=stops_after_one_batch)
    second = here.run("jobs.retention", {})

    assert (first.state, first.checkpoint) == (State.QUEUED, {"batches": 1, "jobs": 2})
    assert second.result == {"jobs": 3, "batches": 2}


def test_a_wrong_clock_of_a_worker_removes_nothing_too_early(deployment: Deployment) -> None:
    class YearsAhead:
        def now(self) -> Any:
            return deployment.admin.server_time() + timedelta(days=1000)

        def sleep(self, duration: timedelta) -> None:
            raise NotImplementedError

    young = put(deployment, "young", "done", days=1)
    services = replace(deployment.services(), clock=YearsAhead())
    deployment.carry_out("jobs.retention", {}, clock=services.clock)

    assert left(deployment) == {young, MINE}


def test_old_jobs_are_found_by_an_index(deployment: Deployment) -> None:
    for number in range(50):
        put(deployment, f"young-{number}", "done", days=1)
    put(deployment, "old", "done", days=DAYS + 1)
    deployment.admin.compliance.command("profile", 2)
    deployment.run("jobs.retention", {})
    deployment.admin.compliance.command("profile", 0)
    ns = f"{deployment.admin.compliance.name}.jobs"
    found = list(deployment.admin.compliance["system.profile"].find({"ns": ns, "command.sort": {"finished_at": 1}}))

    assert [item["planSummary"] for item in found] == ["IXSCAN { finished_at: 1 }"] * 2
    assert sum(item["docsExamined"] for item in found) == 1
