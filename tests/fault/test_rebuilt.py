"""A process that rebuilds a collection sleeps past its lease beside writers: it finishes, and no write is lost."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from deployment import Deployment
from every import sampled
from migrated import write_scripts
from pymongo.errors import WriteError
from waiting import wait_until

from compliance.erasure.frozen import is_frozen
from compliance.errors import LeaseLost, LockHeld, StoreUnavailable

pytestmark = pytest.mark.timeout(300)
DOCUMENTS = 200
SCRIPT = '''
        """Rebuild."""


        def up(ctx):
            """Rebuild."""
            ctx.rebuild("things", pipeline=[{"$set": {"made": True}}])


        def down(ctx):
            """Let go of a copy that is left."""
            ctx.drop_rebuilt("things")
'''


@pytest.fixture
def rebuilt(empty: Deployment, tmp_path: Path) -> Deployment:
    empty.admin.client.admin.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 1})  # of who sleeps
    deployment = empty.with_settings(migrations=write_scripts(tmp_path / "scripts", {"v001_data_it.py": SCRIPT}))
    deployment.runner().up("000")
    empty.admin.app["things"].insert_many([{"_id": n, "other": 0} for n in range(DOCUMENTS)])
    return deployment


@contextmanager
def writing(deployment: Deployment) -> Iterator[Counter[int]]:
    """Count up a field of the documents for the block; yields what was acknowledged."""
    acknowledged: Counter[int] = Counter()
    ended = threading.Event()
    app = deployment.admin.app["things"]

    def write() -> None:
        number = 0
        while not ended.wait(0.005):
            number = (number + 7) % DOCUMENTS
            with suppress(WriteError):  # refused
                app.update_one({"_id": number}, {"$inc": {"other": 1}})
                acknowledged[number] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        thread.join()


@contextmanager
def process(deployment: Deployment, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Migrate in a process of its own."""
    environ = {
        "PATH": os.defpath,
        **deployment.environ(home),
        "COMPLIANCE_MIGRATIONS": str(deployment.settings.migrations),
        "COMPLIANCE_LEASE_SECONDS": "1",
        "COMPLIANCE_BATCH_DOCS": "10",
    }
    started = subprocess.Popen([sys.executable, "-m", "migrations"], env=environ, stderr=subprocess.PIPE)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def has_begun(deployment: Deployment, phase: str) -> bool:
    """Whether it is at *phase*: the copy is filled, writes are refused, or the copy has its last name."""
    names = deployment.admin.app.list_collection_names()
    if phase == "copy":
        return "things_shadow" in names
    if phase == "freeze":
        return is_frozen(deployment.admin)
    return any(name.startswith("things_shadow_") for name in names)


def finish(deployment: Deployment) -> None:
    def is_done() -> bool:
        with suppress(LockHeld, LeaseLost, StoreUnavailable):
            deployment.runner().up()
            return True
        return False

    wait_until(is_done, timeout=90, what="a successor finishes")


@pytest.mark.parametrize("phase", sampled(["freeze", "copy", "exchange"], each=3))
def test_a_rebuilding_that_sleeps_past_its_lease_is_finished_by_another_and_loses_no_write(
    rebuilt: Deployment, tmp_path: Path, phase: str
) -> None:
    app = rebuilt.admin.app["things"]
    with writing(rebuilt) as acknowledged, process(rebuilt, tmp_path) as started:
        with suppress(AssertionError):  # too fast to be met: it is done then
            wait_until(lambda: started.poll() is not None or has_begun(rebuilt, phase), timeout=60, what="begins")
        started.send_signal(signal.SIGSTOP)
        finish(rebuilt)
        started.send_signal(signal.SIGCONT)
        _, errors = started.communicate(timeout=60)
        assert started.returncode in {0, 75}, errors
        seen = sum(acknowledged.values())
        wait_until(lambda: sum(acknowledged.values()) > seen + 5, timeout=30, what="writes go on")

    found = list(app.find())
    assert {one["_id"]: one["other"] for one in found} == {n: acknowledged[n] for n in range(DOCUMENTS)}
    assert all(one["made"] for one in found)
    assert not is_frozen(rebuilt.admin)
