"""A job whose effect must not be repeated, and a fault at each of its commands to MongoDB, one after the other."""

from collections.abc import Iterator
from datetime import timedelta
from signal import SIGKILL
from typing import Any

import pytest
from counting import BATCHES, KINDS, LEASED, add_counters, assert_counted_once, counted, finish, open_counting
from deployment import Deployment, Stack
from every import FEWEST, every
from nursery import KILL, REACHED, STARTED, STOP, SUCCEEDED, UNTOUCHED, Fault, Nursery, open_nurseries
from parameters import impatient

pytestmark = pytest.mark.timeout(600)

LEASE = timedelta(milliseconds=200)
Nurseries = tuple[Nursery, ...]
MOMENTS = [STARTED, SUCCEEDED]
SLEEPS = [STARTED, pytest.param(SUCCEEDED, marks=pytest.mark.storm)]  # asleep after one is asleep before the next


@pytest.fixture(scope="module")
def counting(stack: Stack) -> Iterator[Deployment]:
    """A database with counters, where a transaction whose client is gone is soon given up."""
    with open_counting(stack) as deployment, impatient(deployment):
        yield deployment.with_settings(lease=LEASE)


@pytest.fixture(scope="module")
def nurseries(counting: Deployment) -> Iterator[Nurseries]:
    environ = {"COMPLIANCE_LEASE_SECONDS": str(LEASE.total_seconds())} | counting.environ(counting.stack.home)
    with open_nurseries(environ) as opened:
        yield opened


def job(counting: Deployment, request_id: str) -> dict[str, Any]:
    return counting.admin.compliance["jobs"].find_one({"_id": request_id}) or {}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_worker_that_is_killed_at_any_command_leaves_one_effect(
    counting: Deployment, nurseries: Nurseries, kind: str, moment: str
) -> None:
    def meet(number: int, lane: int) -> bool:
        request_id = f"kill-{kind}-{moment}-{number}"
        add_counters(counting, request_id)
        end = nurseries[lane].attempt(kind, request_id, Fault(at=number, moment=moment, fate=KILL))
        finish(counting, kind, request_id, lane=lane)

        assert end.exit_code == (-SIGKILL if end.was_reached else 0)
        assert_counted_once(counting, kind, request_id)
        return end.was_reached

    assert every(meet) >= FEWEST[kind]


@pytest.mark.parametrize("moment", SLEEPS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_worker_that_sleeps_at_any_command_until_it_is_replaced_commits_nothing_when_it_wakes(
    counting: Deployment, nurseries: Nurseries, kind: str, moment: str
) -> None:
    def meet(number: int, lane: int) -> bool:
        request_id = f"stop-{kind}-{moment}-{number}"
        add_counters(counting, request_id)
        end = nurseries[lane].attempt(kind, request_id, Fault(at=number, moment=moment, fate=STOP))
        finish(counting, kind, request_id, lane=lane)
        finished = job(counting, request_id)
        if end.is_stopped:
            end = nurseries[lane].wake(end)

        assert end.exit_code in {UNTOUCHED, REACHED}
        assert job(counting, request_id) == finished
        assert_counted_once(counting, kind, request_id)
        return end.was_reached

    assert every(meet) >= FEWEST[kind]


def test_without_the_fence_a_worker_that_wakes_counts_twice(counting: Deployment, nurseries: Nurseries) -> None:
    """The tests above can see what they look for."""
    twice: list[str] = []

    def meet(number: int, lane: int) -> bool:
        request_id = f"unfenced-{number}"
        add_counters(counting, request_id)
        end = nurseries[lane].attempt(
            LEASED.name, request_id, Fault(at=number, moment=STARTED, fate=STOP, is_fenced=False)
        )
        finish(counting, LEASED.name, request_id, lane=lane)
        if end.is_stopped:
            end = nurseries[lane].wake(end)
        if counted(counting, request_id)["count"] > BATCHES[LEASED.name]:
            twice.append(request_id)
        return end.was_reached

    every(meet, range(6, 11))

    assert twice
