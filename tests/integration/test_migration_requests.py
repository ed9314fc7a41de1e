"""Steps that ask the workers: a health check, an export, an import, erasures. Each is asked for exactly once."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from faults import Died, mortal
from migrated import leave_the_lease_behind, succeeds, write_scripts
from waiting import wait_until

from compliance.errors import GateClosed, LockHeld, StepFailed
from compliance.roles import Role
from migrations.runner import Runner
from worker.attempt import carry_out
from worker.outbox import Outbox
from worker.tasks import JOBS

HEALTH = 'ctx.check_health("declared_indexes", wait_seconds=0)'


def deploy(empty: Deployment, folder: Path, *calls: str) -> Deployment:
    body = "\n".join(f"            {call}" for call in calls)
    source = f'''
        """Ask."""


        def up(ctx):
            """Them."""
{body}


        def down(ctx):
            """Nothing."""
    '''
    scripts = write_scripts(folder / "scripts", {"v001_data_ask.py": source})
    return empty.with_settings(migrations=scripts, lease=timedelta(seconds=0.3))


def requests(deployment: Deployment) -> list[dict[str, Any]]:
    return list(deployment.admin.compliance["outbox"].find({}, sort={"_id": 1}))


def work(deployment: Deployment) -> list[str]:
    """Be watcher and worker once; return the states of all jobs."""
    Outbox(deployment.services(Role.SEALER)).drain()
    jobs = deployment.admin.compliance["jobs"]
    services = deployment.services()
    for job in jobs.find({"state": "queued"}, sort={"created_at": 1}):
        carry_out(JOBS[job["kind"]], job["_id"], services=services, on_progress=lambda _: None)
    return [job["state"] for job in jobs.find({}, sort={"created_at": 1})]


def ends_at_gate(runner: Runner, match: str) -> None:
    with pytest.raises(GateClosed, match=match):
        runner.up()


def test_a_run_waits_until_the_health_check_of_the_workers_holds(empty: Deployment, tmp_path: Path) -> None:
    deployment = deploy(empty, tmp_path, HEALTH)
    ends_at_gate(deployment.runner(), "health.check waits in the outbox: is the watcher running")
    ends_at_gate(deployment.runner(), "run `compliance migrate up` again")
    assert len(requests(deployment)) == 1

    assert work(deployment) == ["done"]
    deployment.runner().up()

    assert deployment.runner().pending() == ()
    assert requests(deployment) == []
    (entry,) = deployment.entries(action="health.checked")
    asked = deployment.entries(**{"details.op": "job"})
    assert {one["details"]["request"] for one in asked} == {entry["request_id"]}


def test_a_check_that_fails_stops_the_script_and_is_asked_for_again(empty: Deployment, tmp_path: Path) -> None:
    deployment = deploy(empty, tmp_path, HEALTH)
    ends_at_gate(deployment.runner(), "again")
    deployment.admin.compliance["jobs"].drop_index("ix_job_ring")

    work(deployment)
    with pytest.raises(StepFailed, match="not as it should be: declared_indexes"):
        deployment.runner().up()
    ends_at_gate(deployment.runner(), "again")  # which made the foundation complete
    assert work(deployment) == ["done", "done"]
    deployment.runner().up()

    assert deployment.runner().pending() == ()


def test_a_collection_is_exported_before_it_goes_and_imported_again(empty: Deployment, tmp_path: Path) -> None:
    tracks = empty.admin.app["tracks"]
    tracks.insert_many([{"_id": n, "title": f"Track {n}"} for n in range(3)])
    deployment = deploy(
        empty,
        tmp_path,
        'ctx.export_collection("tracks", package="before", wait_seconds=0)',
        'ctx.atomic("empty", lambda tx: tx.delete("tracks", {}))',
        'ctx.import_collection("tracks", package="before", wait_seconds=0)',
    )
    ends_at_gate(deployment.runner(), "export.run waits")
    assert work(deployment) == ["done"]
    ends_at_gate(deployment.runner(), "import.run waits")
    assert tracks.count_documents({}) == 0

    assert work(deployment) == ["done", "done"]
    deployment.runner().up()

    assert [one["_id"] for one in tracks.find({}, sort={"_id": 1})] == [0, 1, 2]


def test_a_request_that_is_refused_stops_the_script_with_the_reason(empty: Deployment, tmp_path: Path) -> None:
    deployment = deploy(empty, tmp_path, 'ctx.check_health("nothing_such", wait_seconds=0)')
    ends_at_gate(deployment.runner(), "again")

    assert work(deployment) == ["rejected"]

    with pytest.raises(
        StepFailed, match=r"is rejected: .*there is no health check of that name.*`compliance jobs show"
    ):
        deployment.runner().up()


def test_a_dry_run_asks_for_nothing(empty: Deployment, tmp_path: Path) -> None:
    lines: list[str] = []
    deployment = deploy(empty, tmp_path, HEALTH, 'ctx.erase_people("users", where={"deleted": True})')

    deployment.runner(report=lines.append).up(dry_run=True)

    assert requests(deployment) == []
    assert lines[-2:] == [
        "  ask for compliance.health.check and wait until it is done",
        "  erase 0 documents of users",
    ]


def is_undone(deployment: Deployment) -> bool:
    try:
        deployment.runner().down("zero")
    except LockHeld:
        return False
    return True


@pytest.mark.parametrize("moment", ["before", "after"])
def test_each_person_is_asked_for_once_wherever_the_runner_dies(empty: Deployment, tmp_path: Path, moment: str) -> None:
    gone = [ObjectId() for _ in range(6)]
    accounts = [{"_id": id_, "gone": True} for id_ in gone] + [{"_id": ObjectId(), "gone": False} for _ in gone]
    empty.admin.app["accounts"].insert_many(accounts)
    deployment = deploy(empty, tmp_path, 'ctx.erase_people("accounts", where={"gone": True})')
    deployment.runner().up()

    def dies(at: int) -> bool:
        wait_until(lambda: is_undone(deployment), timeout=20, what="the lease of the dead runner ends")
        empty.admin.compliance["outbox"].delete_many({})
        runner = deployment.runner(batch_docs=4)
        try:
            replace(runner, databases=mortal(runner.databases, at=at, committed=moment == "after")).up()
        except Died:
            leave_the_lease_behind(empty.admin)
            wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")
        else:
            return False
        assert sorted(one["kwargs"]["subject_id"] for one in requests(deployment)) == sorted(gone)
        return True

    deaths = next(at for at in range(1, 20) if not dies(at)) - 1
    assert deaths >= 5  # begun, three batches, done, applied
    assert {one["task"] for one in requests(deployment)} == {"compliance.erasure.request"}


def test_a_document_that_names_nobody_is_set_aside(empty: Deployment, tmp_path: Path) -> None:
    empty.admin.app["accounts"].insert_many([{"_id": 1, "gone": True}, {"_id": 2, "gone": True, "owner": ObjectId()}])
    deployment = deploy(empty, tmp_path, 'ctx.erase_people("accounts", where={"gone": True}, subject="owner")')

    deployment.runner().up()

    assert len(requests(deployment)) == 1
    (aside,) = empty.admin.compliance["set_aside"].find()
    assert (aside["document_id"], aside["reason"]) == (1, "holds no owner")
