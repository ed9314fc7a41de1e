"""Thousands of entries by eight processes, while writers and sealers are killed: an untouched log has no findings."""

import random
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment
from sealed import SealedLog
from supervisor import TESTS, Supervised, supervised
from system import BIN
from waiting import wait_until

from compliance.clock import SystemClock

pytestmark = pytest.mark.timeout(400)

WRITERS, SEALERS, FEW = 8, 2, 4
SEED = 20261123
EACH = 2_000  # entries until a writer ends by itself


def crew(deployment: Deployment, home: Path) -> list[Supervised]:
    environ = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": f"{TESTS}:{TESTS.parent}", **deployment.environ(home)}
    writer = [sys.executable, str(TESTS / "appending.py"), str(EACH)]
    sealer = [str(BIN / "compliance"), "watcher"]
    return [
        *(Supervised(f"writer-{number}", writer, environ, home / f"writer-{number}.log") for number in range(WRITERS)),
        *(Supervised(f"sealer-{number}", sealer, environ, home / f"sealer-{number}.log") for number in range(SEALERS)),
    ]


def count_streams(deployment: Deployment) -> int:
    """How many writers wrote something before they were killed."""
    return len(deployment.admin.audit["audit_log"].distinct("writer.stream"))


@pytest.mark.parametrize("entries", [400, pytest.param(10_000, marks=pytest.mark.storm)])
def test_an_untouched_log_has_no_findings(deployment: Deployment, tmp_path: Path, entries: int) -> None:
    nemesis = random.Random(SEED)
    sealed = SealedLog(deployment, tmp_path / "home" / "seal-guard.json")
    home = tmp_path / "home"
    home.mkdir()
    kills = 0
    with ExitStack() as cleanup:
        processes = crew(deployment, home)
        cleanup.enter_context(supervised(processes))
        deadline = time.monotonic() + 300
        while sealed.count() < entries or min(kills, count_streams(deployment)) <= FEW:
            assert time.monotonic() < deadline, f"{sealed.count()} entries after 300 s"
            SystemClock().sleep(timedelta(seconds=nemesis.uniform(0.2, 0.6)))
            victim = nemesis.choice(processes)
            victim.signal(9)
            kills += 1
            for process in processes:
                process.start()
        for process in processes[:WRITERS]:
            process.signal(9)
        count = sealed.count()
        wait_until(lambda: sealed.size >= count, timeout=60, what=f"{count} entries are sealed")

    report = sealed.verify()
    ids = [id_ for batch in sealed.seals.batches(sealed.log) for id_ in batch.ids]

    assert (report.findings, report.pending, report.entries) == ((), 0, sealed.count())
    assert len(set(ids)) == len(ids) == sealed.count() >= entries
    assert deployment.admin.audit["audit_incidents"].count_documents({}) == 0
    assert deployment.admin.app["consent"].count_documents({}) == len(deployment.entries(action="consent.granted"))
