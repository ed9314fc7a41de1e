"""A walk of which a repeat would count twice, under faults and beside writers: each document exactly once."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from deployment import Deployment
from migrated import write_scripts
from parameters import impatient
from proxy import BEFORE_REPLY, BEFORE_REQUEST
from walked import (
    DOCUMENTS,
    SHORT_LEASE,
    OvertakenDatabases,
    begin_again,
    break_line,
    die,
    meet,
    overtake,
    runner_of,
    sleep_and_wake,
)

from compliance.errors import LeaseLost

pytestmark = pytest.mark.timeout(600)

SCRIPT = '''
        """Count."""


        def up(ctx):
            """Each once."""
            ctx.walk("things", where={}, update={"$inc": {"n": 1}})


        def down(ctx):
            """Nothing."""
'''


@pytest.fixture
def walked(empty: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """A database with one script, where a transaction that nobody ends is soon given up."""
    scripts = write_scripts(tmp_path / "scripts", {"v001_data_it.py": SCRIPT})
    deployment = empty.with_settings(migrations=scripts, batch_docs=4, lease=SHORT_LEASE)
    deployment.migrate()
    begin_again(deployment)
    with impatient(deployment):
        yield deployment


@pytest.mark.parametrize("committed", [False, True])
def test_a_walk_whose_runner_dies_at_any_transaction_counts_once(walked: Deployment, committed: bool) -> None:  # noqa: FBT001
    met = 0
    while meet(walked, (met, committed), partial(die, walked, met + 1, committed=committed)):
        met += 1

    assert met >= DOCUMENTS // 4 + 3


@pytest.mark.parametrize("when", [BEFORE_REQUEST, BEFORE_REPLY])
def test_a_walk_whose_line_breaks_counts_once_and_goes_on_by_itself(walked: Deployment, when: str) -> None:
    at, met = 3, 0
    while meet(walked, (at, when), partial(break_line, walked, at, when)):
        at, met = at + 9, met + 1

    assert met >= 8


def test_a_zombie_that_wakes_up_behind_its_lease_changes_nothing(walked: Deployment, tmp_path: Path) -> None:
    assert meet(walked, "zombie", partial(sleep_and_wake, walked, tmp_path, 0.02))


def test_a_runner_that_was_overtaken_is_told_so_at_any_transaction(walked: Deployment) -> None:
    """Also where what its successor wrote is in its way before the fence is: the end of a step is inserted once."""
    met = 0

    def overtaken() -> bool:
        runner = runner_of(walked)
        try:
            replace(runner, databases=OvertakenDatabases(runner.databases, met + 1, partial(overtake, walked))).up()
        except LeaseLost:
            return True
        return False

    while meet(walked, met, overtaken):
        met += 1

    assert met >= DOCUMENTS // 4 + 3
