"""Whoever keeps two shapes in step meets a fault: it dies, its line breaks, or it sleeps."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployment import Deployment
from disturbed import Disturbance, DisturbedDatabases
from faults import Died, mortal
from shaped import NAME, PEOPLE, Applications, agree, follower, wait_until_in_step
from waiting import wait_until
from walked import proxied

from migrations.online.follow import following
from migrations.online.state import standing_of

LEASE = {"_id": f"reconcile {NAME}"}


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


def sleep_past_the_lease(deployment: Deployment, home: Path, applications: Applications) -> None:
    """Stop the process for longer than its lease, let a successor take over, wake it up, and kill it."""
    with process(deployment, home) as first:
        wait_until(lambda: min(applications.written.values()) > 20, timeout=30, what="both write")
        first.send_signal(signal.SIGSTOP)
        with following(follower(deployment)):
            wait_until(lambda: works(deployment, os.getpid()), timeout=30, what="a successor takes over")
            first.send_signal(signal.SIGCONT)
            written = min(applications.written.values())
            wait_until(lambda: min(applications.written.values()) > written + 20, timeout=30, what="both write on")
        wait_until(lambda: works(deployment, first.pid), timeout=30, what="the first one is back")
        first.kill()


def lose_the_primary(deployment: Deployment, at: int, moment: str) -> bool:
    """Make the primary step down at a transaction; whoever follows goes on by itself."""
    keeping, disturbance = follower(deployment), Disturbance(deployment)
    keeping.databases = DisturbedDatabases(keeping.databases, disturbance, at=at, moment=moment)
    with following(keeping):
        wait_until(lambda: disturbance.is_over, timeout=60, what="the primary steps down")
    return True


def lose_the_line(deployment: Deployment, at: int, when: str) -> bool:
    """Lose a request or a reply; whoever follows goes on by itself."""
    keeping = follower(deployment)
    with proxied(deployment, keeping.databases, at=at, when=when) as (proxy, databases):
        keeping.databases = databases
        with following(keeping):
            wait_until(lambda: proxy.broke is not None, timeout=60, what="the line breaks")
    return True
