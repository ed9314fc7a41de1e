"""Of several runners of migrations one works, and the others are told so."""

import os
import threading

import pytest
from deployment import Deployment
from migrated import NAMES, names

from compliance.errors import LockHeld
from migrations.runner import Runner


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
    runners = [empty.runner() for _ in range(4)]
    together = threading.Barrier(len(runners))
    outcomes: list[object] = []

    def start(runner: Runner) -> None:
        together.wait()
        try:
            outcomes.append(names(runner.up()))
        except LockHeld as held:
            outcomes.append(held)

    threads = [threading.Thread(target=start, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == len(runners)
    assert outcomes.count(NAMES) == 1
    assert all(isinstance(outcome, LockHeld) or outcome == [] for outcome in outcomes if outcome != NAMES)
    assert len(empty.entries(action="migration.applied")) == len(NAMES)
