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
from parameters import impatient
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
def rebuilt(empty: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    deployment = empty.with_settings(migrations=write_scripts(tmp_path / "scripts", {"v001_data_it.py": SCRIPT}))
    deployment.runner().up("000")
    empty.admin.app["things"].insert_many([{"_id": n, "other": 0} for n in range(DOCUMENTS)])
    with impatient(empty):  # with who sleeps
        yield deployment


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


ASLEEP = """
import os, runpy, signal
from migrations.ops.rebuild.copy import Copier
from migrations.ops.rebuild.exchange import Exchange

def fall_asleep(owner, name, left):
    original = getattr(owner, name)
    def asleep(self, *arguments):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(self, *arguments)
    setattr(owner, name, asleep)

fall_asleep({place})
runpy.run_module("migrations", run_name="__main__")
"""
PLACES = {
    "copy": 'Copier, "made", 3',  # two batches are there
    "freeze": 'Exchange, "_make_unique", 1',  # writes are refused
    "exchange": 'Exchange, "_rename", 1',  # the next command exchanges the two
}


@contextmanager
def asleep(deployment: Deployment, home: Path, phase: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Migrate in a process of its own, which stops itself in *phase*; it is stopped when the block begins."""
    environ = {
        "PATH": os.defpath,
        **deployment.environ(home),
        "COMPLIANCE_MIGRATIONS": str(deployment.settings.migrations),
        "COMPLIANCE_LEASE_SECONDS": "1",
        "COMPLIANCE_BATCH_DOCS": "10",
    }
    script = ASLEEP.format(place=PLACES[phase])
    started = subprocess.Popen([sys.executable, "-c", script], env=environ, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: is_stopped(started.pid), timeout=60, what="it falls asleep")
        yield started
    finally:
        started.kill()
        started.communicate()


def is_stopped(pid: int) -> bool:
    """Whether the child *pid* sleeps by a signal; one that ended is left to whoever waits for it."""
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def is_at(deployment: Deployment, phase: str) -> bool:
    """Whether what is there is that of *phase*: a part of the copy; writes are refused; the copy has its last name."""
    copies = {name for name in deployment.admin.app.list_collection_names() if name.startswith("things_shadow")}
    if phase == "copy":
        return copies == {"things_shadow"} and not is_frozen(deployment.admin)
    is_named = any(name.startswith("things_shadow_") for name in copies)
    return is_frozen(deployment.admin) and is_named == (phase == "exchange")


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
    with writing(rebuilt) as acknowledged, asleep(rebuilt, tmp_path, phase) as started:
        assert is_at(rebuilt, phase)
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
