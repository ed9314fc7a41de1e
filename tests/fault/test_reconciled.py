"""Two applications write, and whoever keeps their shapes in step dies, sleeps or comes back: no write is lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from followed import assert_in_step, die, process, sleep_past_the_lease, works
from parameters import impatient
from shaped import NAME, PEOPLE, Applications, follower, shaped
from waiting import wait_until

from migrations.online.follow import following, open_changes
from migrations.online.state import standing_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def closed(empty: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """An online change that nobody has started, where a transaction that nobody ends is soon given up."""
    deployment = shaped(empty, tmp_path, people=12, lease=timedelta(seconds=1))
    deployment.runner().up("000")
    with impatient(deployment):
        yield deployment


@pytest.fixture
def dual(closed: Deployment) -> Deployment:
    """An online change that is open."""
    closed.runner().up()
    return closed


@pytest.mark.parametrize("at", sampled(range(1, 13), each=4))
def test_who_dies_at_any_transaction_loses_no_write(dual: Deployment, at: int) -> None:
    for committed in (False, True):
        applications = Applications(dual, list(range(12)), seed=2 * at + committed)
        with applications.writing("old", "new", pause=0.01):
            assert die(dual, at, committed=committed), committed
        assert_in_step(dual, applications)


def test_a_process_that_sleeps_past_its_lease_or_is_killed_loses_no_write(dual: Deployment, tmp_path: Path) -> None:
    applications = Applications(dual, list(range(12)))
    with applications.writing("old", "new"):
        sleep_past_the_lease(dual, tmp_path, applications)
    assert_in_step(dual, applications)


def test_a_process_ends_when_it_is_asked_to_and_gives_its_lease_back(dual: Deployment, tmp_path: Path) -> None:
    with process(dual, tmp_path) as started:
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0

    assert standing_of(dual.admin, NAME).owner is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a thread dies with its process
@pytest.mark.parametrize("at", sampled(range(1, 13), each=6))
@pytest.mark.parametrize("way", ["start", "complete", "rollback"])
def test_a_command_that_dies_at_any_transaction_is_finished_by_the_next(closed: Deployment, way: str, at: int) -> None:
    deployment = closed
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
        if not open_changes(runner.databases):
            return  # it died behind its last transaction
        beside.enter_context(following(follower(deployment)))
        wait_until(lambda: works(deployment, os.getpid()), timeout=30, what="somebody keeps them in step")
        runner.complete(NAME) if way == "complete" else runner.rollback(NAME)
