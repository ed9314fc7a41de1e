"""What beat sends: the sweep and nothing else."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.resume import SWEEP_QUEUE, TASK, beat_schedule
from worker.routing import QUEUES


def test_beat_sends_the_sweep_and_nothing_else() -> None:
    assert [entry["task"] for entry in beat_schedule(timedelta(seconds=5)).values()] == [TASK]


@given(st.floats(0.1, 3600))
def test_beat_sends_sweeps_that_no_clock_can_discard(seconds: float) -> None:
    sweep = beat_schedule(timedelta(seconds=seconds))["sweep"]

    assert (sweep["task"], sweep["schedule"]) == (TASK, timedelta(seconds=seconds))
    assert sweep["options"]["queue"] == SWEEP_QUEUE
    assert "expires" not in sweep["options"]


def test_the_sweep_has_a_queue_that_is_read() -> None:
    assert SWEEP_QUEUE in QUEUES
