"""Of several runners of migrations one works, and the others are told so."""

import os
import threading

import pytest
from deployment import Deployment
from migrated import NAMES, names
from waiting import wait_until

from compliance.errors import LockHeld
from migrations.ledger import owner
from migrations.runner import Runner

STARTERS = 64


def test_a_second_runner_is_told_who_runs_migrations(empty: Deployment) -> None:
    second = empty.runner()
    refused: list[str] = []

    def interfere(line: str) -> None:
        if line.startswith("v001"):
            with pytest.raises(LockHeld) as held:
                second.up()
            refused.append(str(held.value))

    done = empty.runner(report=interfere).up()

    assert names(done) == NAMES
    assert len(refused) == 1
    assert str(os.getpid()) in refused[0]
    assert second.up() == ()


def test_of_runners_that_start_at_once_one_migrates(empty: Deployment) -> None:
    """The one that works waits until all others were refused, so that none comes when everything is done."""
    refused: list[str] = []

    def wait(line: str) -> None:
        if line.startswith("v001"):
            wait_until(lambda: len(refused) == STARTERS - 1, timeout=50, what="the others are refused")

    runners = [empty.runner(report=wait) for _ in range(STARTERS)]
    together = threading.Barrier(len(runners))
    outcomes: list[object] = []

    def start(runner: Runner) -> None:
        together.wait()
        try:
            outcomes.append(names(runner.up()))
        except LockHeld as held:
            refused.append(f"{held.exit_code}: {held}")

    threads = [threading.Thread(target=start, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [NAMES]
    assert len(refused) == STARTERS - 1
    assert all(line.startswith(f"75: migrations are run by {owner()} until") for line in refused)
    assert len(empty.entries(action="migration.applied")) == len(NAMES)
