"""The primary of three nodes steps down at commands of a job: always at each commit, at every command in the storm."""

import uuid
from collections.abc import Iterator

import pytest
from counting import BATCHES, KINDS, add_counters, assert_counted_once, finish, open_counting
from deployment import Deployment, Stack
from every import FEWEST, every
from nursery import FAILED, REACHED, STARTED, STEP_DOWN, SUCCEEDED, UNTOUCHED, Fault, Nursery, open_nursery

from compliance.errors import StoreUnavailable
from worker.embedded import open_stack

pytestmark = pytest.mark.timeout(900)

MOMENTS = [STARTED, SUCCEEDED]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A replica set of three."""
    with open_stack(tmp_path_factory.mktemp("three"), nodes=3) as running:
        yield running


@pytest.fixture(scope="module")
def counting(stack: Stack) -> Iterator[Deployment]:
    with open_counting(stack) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def nursery(counting: Deployment) -> Iterator[Nursery]:
    admin_uri = counting.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    with open_nursery({"TEST_ADMIN_URI": admin_uri} | counting.environ(counting.stack.home), 0) as opened:
        yield opened


def survive(counting: Deployment, nursery: Nursery, kind: str, fault: Fault) -> bool:
    """Run a job whose primary steps down, and a successor where the attempt gave up; return whether it met *fault*."""
    request_id = f"{kind}-{uuid.uuid4().hex[:8]}"
    add_counters(counting, request_id)
    end = nursery.attempt(kind, request_id, fault)
    finish(counting, kind, request_id, timeout=120, forgiven=(StoreUnavailable,))

    assert end.exit_code in {UNTOUCHED, REACHED, FAILED}  # what fails leaves its message in the broker
    assert_counted_once(counting, kind, request_id)
    return end.was_reached


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_primary_that_steps_down_at_any_commit_leaves_one_effect(
    counting: Deployment, nursery: Nursery, kind: str, moment: str
) -> None:
    def meet(number: int, _lane: int) -> bool:
        fault = Fault(at=number, moment=moment, fate=STEP_DOWN, only="commitTransaction")
        return survive(counting, nursery, kind, fault)

    assert every(meet, lanes=1) == BATCHES[kind]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_primary_that_steps_down_while_a_job_is_taken_leaves_one_effect(
    counting: Deployment, nursery: Nursery, kind: str
) -> None:
    def meet(number: int, _lane: int) -> bool:
        return survive(counting, nursery, kind, Fault(at=number, moment=STARTED, fate=STEP_DOWN))

    assert every(meet, (1, 3), lanes=1) == 2


@pytest.mark.storm
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_primary_that_steps_down_at_any_command_leaves_one_effect(
    counting: Deployment, nursery: Nursery, kind: str, moment: str
) -> None:
    def meet(number: int, _lane: int) -> bool:
        return survive(counting, nursery, kind, Fault(at=number, moment=moment, fate=STEP_DOWN))

    assert every(meet, lanes=1) >= FEWEST[kind]
