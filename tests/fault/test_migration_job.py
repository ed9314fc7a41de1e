"""A migration of which a repeat would count twice, as a job: delivered twice, killed, and delivered again when done."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from deployment import Deployment, connect
from every import sampled
from migrated import write_scripts
from nursery import KILL, STARTED, SUCCEEDED, Fault, Nursery, open_nursery
from parameters import impatient
from waiting import wait_until

from compliance.roles import Role
from migrations import progress
from migrations.ops import batches
from worker.intake import Message, receive
from worker.services import Services
from worker.tasks import JOBS, migration_run

pytestmark = pytest.mark.timeout(200)

DOCUMENTS = 24
FEWEST = 40  # commands of an undisturbed attempt, at the least
UP = {"direction": "up"}
SCRIPT = '''
        """Count."""


        def up(ctx):
            """Each once."""
            ctx.walk("things", where={}, update={"$inc": {"n": 1}})
            ctx.verify("things", none={"n": {"$ne": 1}})


        def down(ctx):
            """Nothing."""
'''


@pytest.fixture
def counting(empty: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """A database with one script, where a transaction that nobody ends is soon given up."""
    scripts = write_scripts(tmp_path / "scripts", {"v001_data_it.py": SCRIPT})
    deployment = empty.with_settings(migrations=scripts, batch_docs=2, lease=timedelta(seconds=0.5))
    deployment.runner().up("000")
    deployment.admin.app["things"].insert_many([{"_id": n, "n": 0} for n in range(DOCUMENTS)])
    with impatient(deployment):
        yield deployment


@pytest.fixture
def nursery(counting: Deployment, tmp_path: Path) -> Iterator[Nursery]:
    environ = {
        **counting.environ(tmp_path),
        "COMPLIANCE_MIGRATIONS": str(counting.settings.migrations),
        "COMPLIANCE_BATCH_DOCS": "2",
        "COMPLIANCE_LEASE_SECONDS": "0.5",
    }
    with open_nursery(environ, 0) as opened:
        yield opened


def asked(request_id: str = "r-1", **values: Any) -> Message:
    return Message(kind=JOBS["migration.run"], values=values or UP, request_id=request_id)


def finish(counting: Deployment, request_id: str) -> None:
    """Deliver the message again until the job is done; meanwhile the leases of the dead one end."""

    def is_done() -> bool:
        receive(replace(asked(request_id), is_repeat=True), services=counting.services())
        return bool(job(counting, request_id)["state"] == "done")

    wait_until(is_done, timeout=60, what="a successor finishes the job")


def job(counting: Deployment, request_id: str) -> dict[str, Any]:
    return counting.admin.compliance["jobs"].find_one({"_id": request_id}) or {}


def assert_counted_once(counting: Deployment, what: object = None) -> None:
    found = {one["_id"]: one["n"] for one in counting.admin.app["things"].find()}

    assert found == dict.fromkeys(range(DOCUMENTS), 1), what


def another_worker(counting: Deployment) -> Services:
    databases = connect(counting.addresses, Role.WORKER, app_name="another")
    counting.cleanup.callback(databases.client.close)
    return replace(counting.services(), databases=databases)


def test_one_message_that_two_workers_get_at_once_is_one_run(counting: Deployment) -> None:
    workers = [counting.services(), another_worker(counting)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda services: receive(asked(), services=services), workers))
    finish(counting, "r-1")

    assert_counted_once(counting)
    assert len(counting.entries(action="migration.applied", entity_id="v001_data_it")) == 1
    assert job(counting, "r-1")["fence"] == 1


def test_a_message_that_comes_again_when_its_job_is_done_changes_nothing(counting: Deployment) -> None:
    receive(asked(), services=counting.services())
    before, entries = job(counting, "r-1"), counting.entries()
    receive(asked(), services=counting.services())

    assert before["result"] == {"direction": "up", "revisions": ["v001_data_it"]}
    assert (job(counting, "r-1"), counting.entries()) == (before, entries)
    assert_counted_once(counting)


@pytest.mark.parametrize("moment", [STARTED, SUCCEEDED])
@pytest.mark.parametrize("at", sampled(range(7, 91, 7), each=6))
def test_a_worker_that_is_killed_in_the_middle_leaves_a_run_that_counts_once(
    counting: Deployment, nursery: Nursery, at: int, moment: str
) -> None:
    end = nursery.take("migration.run", UP, "r-1", Fault(at=at, moment=moment, fate=KILL))
    finish(counting, "r-1")

    assert end.exit_code == -SIGKILL if at <= FEWEST else end.exit_code in {-SIGKILL, 0}
    assert_counted_once(counting, (at, moment))
    assert len(counting.entries(action="migration.applied", entity_id="v001_data_it")) == 1


def test_the_job_says_how_far_it_is_and_how_long_it_takes(
    counting: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "TELL_EVERY", timedelta())
    monkeypatch.setattr(migration_run, "TELL_EVERY", timedelta())
    told: list[dict[str, Any]] = []
    looked: list[list[progress.Progress]] = []

    def hear(checkpoint: Any) -> None:
        told.append({**checkpoint, "stored": job(counting, "r-1")["checkpoint"]})
        looked.append(progress.progress_of(counting.admin))

    receive(asked(), services=counting.services(), on_progress=hear)

    assert told[0]["progress"] == "v001_data_it (1 of 1)"
    half = told[len(told) // 2]
    assert half["what"] == "v001_data_it (1 of 1): walk things"
    assert 0 < half["documents"] < half["of"] == DOCUMENTS
    assert half["per_second"] > 0
    assert half["seconds_left"] >= 0
    assert half["stored"]["progress"] == half["progress"]
    assert half["progress"].startswith(f"v001_data_it (1 of 1): walk things: {half['documents']} of 24 documents, ")
    assert [one.documents for one in looked[len(told) // 2]] == [half["documents"]]
    assert progress.progress_of(counting.admin) == []


def test_a_plan_writes_nothing_and_is_the_result(counting: Deployment) -> None:
    receive(asked(action="plan"), services=counting.services())
    receive(asked("r-2", dry_run=True), services=counting.services())

    result = job(counting, "r-1")["result"]
    assert result["revisions"] == ["v001_data_it"]
    assert any("24 documents of things" in line for line in result["plan"])
    assert job(counting, "r-2")["result"] == result
    assert counting.entries(entity_id="v001_data_it") == []
    assert counting.admin.app["things"].count_documents({"n": 0}) == DOCUMENTS


def test_verify_tells_what_is_no_longer_as_the_scripts_say(counting: Deployment) -> None:
    receive(asked(), services=counting.services())
    receive(asked("r-2", action="verify"), services=counting.services())
    counting.admin.app["things"].update_many({"_id": {"$lt": 3}}, {"$set": {"n": 7}})
    entries = counting.entries(entity_type="migration")
    receive(asked("r-3", action="verify"), services=counting.services())

    assert job(counting, "r-2")["result"] == {"problems": 0, "found": []}
    assert job(counting, "r-3")["result"] == {
        "problems": 1,
        "found": ["v001_data_it: 3 documents of things are not as they should be"],
    }
    assert counting.entries(entity_type="migration") == entries


def test_a_job_that_meets_the_lease_of_somebody_else_waits_for_it(counting: Deployment) -> None:
    runner = counting.runner()

    def interfere(line: str) -> None:
        if line.startswith("v001"):
            receive(asked(), services=counting.services())
            states.append((job(counting, "r-1")["state"], job(counting, "r-1")["error"]["code"]))

    states: list[tuple[str, str]] = []
    replace(runner, report=interfere).up()
    finish(counting, "r-1")

    assert states == [("queued", "LockHeld")]
    assert job(counting, "r-1")["result"] == {"direction": "up", "revisions": []}
    assert_counted_once(counting)
