"""A step that goes through a collection, met by a fault beside writers: each document is changed exactly once."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TypeVar

from deployment import Deployment
from disturbed import Disturbance, DisturbedDatabases
from faults import Died, mortal
from migrated import leave_the_lease_behind
from proxy import Proxy, open_proxy
from pymongo.errors import PyMongoError
from waiting import wait_until

from compliance.errors import LeaseLost, LockHeld, StoreUnavailable
from compliance.mongo import Databases, Session, open_client
from compliance.roles import Role
from migrations.runner import Runner

DOCUMENTS = 24
BEFORE_IT_BEGINS = {"rolesInfo", "connectionStatus", "usersInfo"}  # what the driver does not try again by itself
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SHORT_LEASE = timedelta(seconds=0.5)
T = TypeVar("T")


def runner_of(walked: Deployment) -> Runner:
    """A runner with small batches, on one connection for all: a storm would open a thousand."""
    return walked.runner(databases=walked.services(Role.MIGRATOR).databases, most_docs=4)


@dataclass
class Written:
    """How often an application counted each document up; between the two is what it heard nothing of."""

    asked: Counter[int] = field(default_factory=Counter)
    acknowledged: Counter[int] = field(default_factory=Counter)


@contextmanager
def written(walked: Deployment) -> Iterator[Written]:
    """Fill the collection, and count up another field of its documents for the block."""
    app = walked.admin.app["things"]
    app.delete_many({})
    app.insert_many([{"_id": n, "n": 0, "other": 0} for n in range(DOCUMENTS)])
    counted = Written()
    ended = threading.Event()

    def write() -> None:
        chosen = random.Random(1)
        while not ended.wait(0.01):
            id_ = chosen.randrange(DOCUMENTS)
            counted.asked[id_] += 1
            with suppress(PyMongoError):
                app.update_one({"_id": id_}, {"$inc": {"other": 1}})
                counted.acknowledged[id_] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield counted
    finally:
        ended.set()
        thread.join()


def assert_once(walked: Deployment, counted: Written, what: object) -> None:
    found = list(walked.admin.app["things"].find())

    assert {one["_id"]: one["n"] for one in found} == dict.fromkeys(range(DOCUMENTS), 1), what
    assert all(counted.acknowledged[one["_id"]] <= one["other"] <= counted.asked[one["_id"]] for one in found), what


def finish(walked: Deployment) -> None:
    """Let a successor run until it is done."""

    def is_done() -> bool:
        with suppress(LockHeld, LeaseLost, StoreUnavailable):
            runner_of(walked).up()
            return True
        return False

    wait_until(is_done, timeout=90, what="a successor finishes the walk")


def begin_again(walked: Deployment) -> None:
    """Undo the script; a run that died at its last commit left a lease behind."""

    def is_undone() -> bool:
        with suppress(LockHeld):
            runner_of(walked).down("zero")
            return True
        return False

    wait_until(is_undone, timeout=30, what="the lease of the dead runner ends")


def meet(walked: Deployment, what: object, fault: Callable[[], bool]) -> bool:
    """Meet *fault* with writers beside it, let a successor finish, and look; return whether it was met."""
    with written(walked) as counted:
        was_met = fault()
        finish(walked)
    assert_once(walked, counted, what)
    begin_again(walked)
    return was_met


def die(walked: Deployment, at: int, *, committed: bool) -> bool:
    """Die at a transaction."""
    runner = runner_of(walked)
    try:
        replace(runner, databases=mortal(runner.databases, at=at, committed=committed)).up()
    except Died:
        leave_the_lease_behind(walked.admin)
        return True
    return False


@contextmanager
def proxied(walked: Deployment, databases: Databases, *, at: int, when: str) -> Iterator[tuple[Proxy, Databases]]:
    """The same databases over a line that breaks at a command."""
    endpoints = walked.stack.endpoints
    (port,) = endpoints.mongod_ports
    uri = endpoints.mongodb_uri(Role.MIGRATOR.value, auth_source=f"{walked.name}_compliance")
    with open_proxy(port) as proxy:
        by_proxy = uri.replace(f":{port}/", f":{proxy.port}/").replace("replicaSet=rs0&", "")
        with open_client(by_proxy, app_name="test", direct=True) as client:
            proxy.at, proxy.when = at, when
            yield proxy, Databases(client, walked.name, databases.participant)


def break_line(walked: Deployment, at: int, when: str) -> bool:
    """Lose a request or a reply; a run that has begun goes on by itself."""
    runner = runner_of(walked)
    with proxied(walked, runner.databases, at=at, when=when) as (proxy, databases):
        try:
            replace(runner, databases=databases).up()
        except StoreUnavailable:
            assert proxy.broke in BEFORE_IT_BEGINS
        return proxy.broke is not None


def step_down(walked: Deployment, at: int, moment: str) -> bool:
    """Make the primary step down at a transaction; a set of one has no primary then for a second."""
    runner, disturbance = runner_of(walked), Disturbance(walked)
    replace(runner, databases=DisturbedDatabases(runner.databases, disturbance, at=at, moment=moment)).up()
    return disturbance.is_over


class OvertakenDatabases(Databases):
    """Databases of a process that sleeps before its n-th transaction, for as long as *meanwhile* takes."""

    def __init__(self, databases: Databases, at: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(databases.client, databases.name, databases.participant)
        object.__setattr__(self, "calls", count(1))
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "meanwhile", meanwhile)

    calls: Iterator[int]
    at: int
    meanwhile: Callable[[], None]

    def transact(self, work: Callable[[Session], T]) -> T:
        if next(self.calls) == self.at:
            self.meanwhile()
        return super().transact(work)


def overtake(walked: Deployment) -> None:
    """Take the lease from whoever has it, who cannot renew it any more, and let a successor finish."""
    lease = {"lease": {"owner": "another:1", "until": LONG_AGO}}
    walked.admin.compliance["migration_lease"].update_one({"_id": "migrations"}, {"$set": lease})
    finish(walked)


def sleep_and_wake(walked: Deployment, home: Path, delay: float) -> bool:
    """Stop a real process for longer than its lease, let a successor finish, and wake it up."""
    environ = {
        "PATH": os.defpath,
        **walked.environ(home),
        "COMPLIANCE_MIGRATIONS": str(walked.settings.migrations),
        "COMPLIANCE_BATCH_DOCS": "1",
        "COMPLIANCE_LEASE_SECONDS": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "migrations"], env=environ, stderr=subprocess.PIPE)
    app = walked.admin.app["things"]
    with suppress(AssertionError):
        wait_until(lambda: process.poll() is not None or app.find_one({"n": 1}) is not None, timeout=60, what="begins")
    threading.Event().wait(delay)
    process.send_signal(signal.SIGSTOP)
    was_met = process.poll() is None
    finish(walked)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in {0, 75}, errors
    return was_met
