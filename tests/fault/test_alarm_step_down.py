"""The primary of three nodes steps down while the audit database is tampered with: every act is one incident."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from bson import ObjectId
from deployment import Deployment, Stack, provision_database
from pymongo.errors import AutoReconnect, OperationFailure
from tampering import an_entry, following, kinds
from waiting import wait_until

from compliance.roles import AUDIT_LOG
from worker.embedded import open_stack
from worker.oplog import OplogWatch
from worker.tamper import TamperWatch

pytestmark = pytest.mark.timeout(300)

STEPS = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A replica set of three."""
    with open_stack(tmp_path_factory.mktemp("three"), nodes=3) as running:
        yield running


@pytest.fixture
def three(stack: Stack) -> Iterator[Deployment]:
    with ExitStack() as cleanup:
        yield provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)


def election(deployment: Deployment) -> ObjectId | None:
    """What the present primary was elected as, None while there is none."""
    with suppress(AutoReconnect, OperationFailure):
        found: ObjectId | None = deployment.admin.client.admin.command("hello").get("electionId")
        return found
    return None


def step_down(deployment: Deployment) -> None:
    before = election(deployment)
    with suppress(AutoReconnect):
        deployment.admin.client.admin.command("replSetStepDown", 2, secondaryCatchUpPeriodSecs=1, force=True)
    wait_until(lambda: election(deployment) not in (None, before), timeout=60, what="a primary is elected")


def test_a_primary_that_steps_down_hides_no_act_and_is_none(three: Deployment) -> None:
    audit = three.admin.audit
    ids = [an_entry(three, f"e-{number}") for number in range(STEPS)]
    with following(three, TamperWatch), following(three, OplogWatch):
        for number, found in enumerate(ids):
            audit[AUDIT_LOG].update_one({"_id": found}, {"$set": {"outcome": "failure"}})
            step_down(three)
            change = {"$v": 2, "diff": {"u": {"performed_by": f"root-{number}"}}}
            operation = {"op": "u", "ns": f"{audit.name}.{AUDIT_LOG}", "o2": {"_id": found}, "o": change}
            three.admin.client.admin.command("applyOps", [operation], writeConcern={"w": "majority"})
        wait_until(lambda: len(kinds(three)) >= 2 * STEPS, timeout=60, what="every act is kept")

    assert kinds(three) == ["APPLY-OPS"] * STEPS + ["MODIFIED"] * STEPS
