"""A storm over everything that goes through a collection: random faults, beside writers, each document exactly once.

A seed, which is printed, chooses step, fault, moment and batch of each schedule; ``WALK_SEED`` repeats a storm.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from queue import Queue

import pytest
from deployment import Deployment, provision_database
from disturbed import BEFORE, WITHIN
from followed import assert_in_step, die, lose_the_line, lose_the_primary, sleep_past_the_lease
from migrated import write_scripts
from parameters import impatient
from proxy import BEFORE_REPLY, BEFORE_REQUEST
from shaped import NAME, PEOPLE, Applications, shaped
from waiting import wait_until
from walked import SHORT_LEASE, break_line, meet, runner_of, sleep_and_wake, step_down
from walked import die as die_walking

from compliance.errors import LockHeld
from worker.embedded import open_stack

SCHEDULES = int(os.environ.get("WALK_SCHEDULES", "200"))  # noqa: TID251 - to see how long some take
LANES = 3  # each has servers of its own, so that one that loses its primary keeps no other waiting
SHAPES = "two shapes"
STEPS = {
    "walk": 'ctx.walk("things", where={}, update={"$inc": {"n": 1}})',
    "backfill": 'ctx.backfill("things", where={"is": None}, update={"$inc": {"n": 1}, "$set": {"is": 1}})',
    "transform": 'ctx.transform("things", where={}, fields=("n",), function=counted)',
    "rebuild": 'ctx.rebuild("things", pipeline=[{"$set": {"n": {"$add": ["$n", 1]}}}])',
}
SCRIPT = '''
        """Count."""


        def up(ctx):
            """Each once."""
            CALL


        def counted(document):
            """Return the next number."""
            return {"n": document["n"] + 1}


        def down(ctx):
            """Nothing."""
'''
FAULTS = ("death", "line", "sleep", "step down")


@dataclass(frozen=True)
class Schedule:
    """One fault."""

    number: int
    step: str
    fault: str
    at: int


@dataclass(frozen=True)
class Lane:
    """Servers, with a database for each kind of step."""

    home: Path
    deployments: dict[str, Deployment]


def schedules(seed: int) -> Iterator[Schedule]:
    chosen = random.Random(seed)
    for number in range(SCHEDULES):
        step = chosen.choice([*STEPS, SHAPES])
        yield Schedule(number, step, chosen.choice(FAULTS), chosen.randrange(1, 90))


@contextmanager
def open_lane(home: Path) -> Iterator[Lane]:
    with open_stack(home / "stack", test_commands=True) as stack, ExitStack() as cleanup:
        found = {}
        for number, step in enumerate([*STEPS, SHAPES]):
            bare = provision_database(stack, f"t_storm_{number}", cleanup)
            if step == SHAPES:
                found[step] = shaped(bare, home, people=0, lease=timedelta(seconds=1))
                bare.admin.app.create_collection(PEOPLE)
            else:
                script = {f"v001_data_{step}.py": SCRIPT.replace("CALL", STEPS[step])}
                folder = write_scripts(home / step, script)
                found[step] = bare.with_settings(migrations=folder, batch_docs=4, lease=SHORT_LEASE)
            runner_of(found[step]).up("000")
        with impatient(found[SHAPES]):
            yield Lane(home, found)


def weather(schedule: Schedule, lane: Lane) -> bool:
    """Carry out one schedule; return whether its fault was met."""
    deployment = lane.deployments[schedule.step]
    if schedule.step == SHAPES:
        return keep_in_step(deployment, schedule, lane.home)
    at = schedule.at
    faults: dict[str, Callable[[], bool]] = {
        "death": partial(die_walking, deployment, at % 12 + 1, committed=bool(at % 2)),
        "line": partial(break_line, deployment, at, (BEFORE_REQUEST, BEFORE_REPLY)[at % 2]),
        "sleep": partial(sleep_and_wake, deployment, lane.home, at / 1000),
        "step down": partial(step_down, deployment, at % 12 + 1, (BEFORE, WITHIN)[at % 2]),
    }
    return meet(deployment, schedule, faults[schedule.fault])


def keep_in_step(deployment: Deployment, schedule: Schedule, home: Path) -> bool:
    """Open an online change, let whoever follows it meet the fault, look, and undo it."""
    people, at = deployment.admin.app[PEOPLE], schedule.at
    people.delete_many({})
    people.insert_many([{"_id": n, "name": f"A{n} B{n}", "other": 0} for n in range(12)])
    runner_of(deployment).up()
    applications, was_met = Applications(deployment, list(range(12)), seed=schedule.number), True
    with applications.writing("old", "new", pause=0.01):
        if schedule.fault == "death":
            was_met = die(deployment, at % 12 + 1, committed=bool(at % 2))
        elif schedule.fault == "line":
            was_met = lose_the_line(deployment, at, (BEFORE_REQUEST, BEFORE_REPLY)[at % 2])
        elif schedule.fault == "step down":
            was_met = lose_the_primary(deployment, at % 12 + 1, (BEFORE, WITHIN)[at % 2])
        else:
            sleep_past_the_lease(deployment, home, applications)
    assert_in_step(deployment, applications)

    def is_undone() -> bool:
        with suppress(LockHeld):
            runner_of(deployment).rollback(NAME)
            return True
        return False

    wait_until(is_undone, timeout=60, what="the change is rolled back")
    return was_met


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_a_storm_of_two_hundred_faults_changes_each_document_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("WALK_SEED", random.SystemRandom().randrange(2**32)))  # noqa: TID251 - to repeat a storm
    sys.stdout.write(f"WALK_SEED={seed}\n")
    lanes: Queue[Lane] = Queue()

    def meet_one(schedule: Schedule) -> bool:
        lane = lanes.get()
        began = time.monotonic()
        try:
            was_met = weather(schedule, lane)
        except BaseException:
            sys.stdout.write(f"{schedule} failed\n")
            raise
        finally:
            lanes.put(lane)
        sys.stdout.write(f"{schedule} {was_met} {time.monotonic() - began:.1f} s\n")
        return was_met

    with ExitStack() as servers, ThreadPoolExecutor(LANES) as pool:
        for number in range(LANES):
            lanes.put(servers.enter_context(open_lane(tmp_path / f"lane{number}")))
        met = sum(pool.map(meet_one, schedules(seed)))
    sys.stdout.write(f"{met} faults met\n")

    assert met > 3 * SCHEDULES // 4
