"""Two applications write, and whoever keeps their shapes in step dies, sleeps or comes back: no write is lost."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from shaped import NAME, PEOPLE, Applications, agree, follower, shaped, wait_until_in_step
from waiting import wait_until

from migrations.online.follow import following
from migrations.online.state import standing_of

pytestmark = pytest.mark.timeout(300)
LEASE = {"_id": f"reconcile {NAME}"}


@pytest.fixture
def dual(empty: Deployment, tmp_path: Path) -> Deployment:
    """An online change that is open."""
    empty.admin.client.admin.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 1})
    deployment = shaped(empty, tmp_path, people=12, lease=timedelta(seconds=1))
    deployment.runner().up()
    return deployment


def assert_in_step(deployment: Deployment, applications: Applications) -> None:
    """Let a successor finish, and look."""
    with following(follower(deployment)):
        wait_until_in_step(deployment)

    assert applications.lost("name", "first", "last") == []
    assert all(agree(one) for one in deployment.admin.app[PEOPLE].find())


def die(deployment: Deployment, at: int, *, committed: bool) -> bool:
    """Die at a transaction, as if by SIGKILL: the lease stays."""
    dying = follower(deployment)
    dying.databases = mortal(dying.databases, at=at, committed=committed)
    died: list[bool] = []

    def run() -> None:
        with suppress(Died):
            dying.run()
            return
        died.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    held = {"state": "running", "lease": {"owner": "dead:1", "until": {"$add": ["$$NOW", 300]}}}
    deployment.admin.compliance["migration_lease"].update_one(LEASE, [{"$set": held}])
    return bool(died)


@pytest.mark.parametrize("committed", [False, True])
def test_who_dies_at_any_transaction_loses_no_write(dual: Deployment, committed: bool) -> None:  # noqa: FBT001
    for at in (1, 2, 4):
        applications = Applications(dual, list(range(12)), seed=at)
        with applications.writing("old", "new", pause=0.01):
            assert die(dual, at, committed=committed), at
        assert_in_step(dual, applications)


@contextmanager
def process(deployment: Deployment, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``compliance reconciler`` for the block."""
    environ = {
        "PATH": os.defpath,
        **deployment.environ(home),
        "COMPLIANCE_MIGRATIONS": str(deployment.settings.migrations),
        "COMPLIANCE_LEASE_SECONDS": "1",
    }
    started = subprocess.Popen([sys.executable, "-m", "worker", "reconciler"], env=environ, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: works(deployment, started.pid), timeout=60, what="the process keeps them in step")
        yield started
    finally:
        started.kill()
        started.communicate()


def works(deployment: Deployment, pid: int) -> bool:
    owner = standing_of(deployment.admin, NAME).owner
    return owner is not None and owner.endswith(f":{pid}")


def test_a_process_that_sleeps_past_its_lease_or_is_killed_loses_no_write(dual: Deployment, tmp_path: Path) -> None:
    applications = Applications(dual, list(range(12)))
    with applications.writing("old", "new"), process(dual, tmp_path) as first:
        wait_until(lambda: min(applications.written.values()) > 20, timeout=30, what="both write")
        first.send_signal(signal.SIGSTOP)
        with following(follower(dual)):
            wait_until(lambda: works(dual, os.getpid()), timeout=30, what="a successor takes over")
            first.send_signal(signal.SIGCONT)
            written = min(applications.written.values())
            wait_until(lambda: min(applications.written.values()) > written + 20, timeout=30, what="both write on")
        wait_until(lambda: works(dual, first.pid), timeout=30, what="the first one is back")
        first.kill()
    assert_in_step(dual, applications)


def test_a_process_ends_when_it_is_asked_to_and_gives_its_lease_back(dual: Deployment, tmp_path: Path) -> None:
    with process(dual, tmp_path) as started:
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0

    assert standing_of(dual.admin, NAME).owner is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a thread dies with its process
@pytest.mark.parametrize("at", sampled(range(1, 13), each=6))
@pytest.mark.parametrize("way", ["start", "complete", "rollback"])
def test_a_command_that_dies_at_any_transaction_is_finished_by_the_next(
    empty: Deployment, tmp_path: Path, way: str, at: int
) -> None:
    empty.admin.client.admin.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 1})
    deployment = shaped(empty, tmp_path, people=12, lease=timedelta(seconds=1))
    deployment.runner().up("000")
    if way != "start":
        deployment.runner().up()
    applications = Applications(deployment, list(range(12)), seed=at)

    with applications.writing("new" if way == "complete" else "old", pause=0.01):
        with suppress(Died):
            command(deployment, way, at)
        leases = deployment.admin.compliance["migration_lease"]
        leases.update_many({}, [{"$set": {"state": "queued", "lease": None, "run_at": "$$NOW"}}])
        command(deployment, way)

    if way == "start":
        assert_in_step(deployment, applications)
    else:
        assert applications.lost(*(("first", "last") if way == "complete" else ("name",))) == []
        gone = {"name"} if way == "complete" else {"first", "last"}
        assert all(gone.isdisjoint(one) for one in deployment.admin.app[PEOPLE].find())


def command(deployment: Deployment, way: str, at: int | None = None) -> None:
    """Carry out a command; with *at* it dies at that transaction, while another process keeps the shapes in step."""
    runner = deployment.runner()
    if at is not None:
        runner = deployment.runner(databases=mortal(runner.databases, at=at, committed=bool(at % 2)))
    with ExitStack() as beside:
        if way == "start":
            runner.up()
            return
        beside.enter_context(following(follower(deployment)))
        wait_until(lambda: works(deployment, os.getpid()), timeout=30, what="somebody keeps them in step")
        runner.complete(NAME) if way == "complete" else runner.rollback(NAME)
