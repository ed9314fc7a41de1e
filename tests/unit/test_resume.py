"""What beat sends: the sweep and nothing else, and no pile of old ones."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.resume import SWEEP_QUEUE, TASK, beat_schedule
from worker.routing import QUEUES


def test_beat_sends_the_sweep_and_nothing_else() -> None:
    assert [entry["task"] for entry in beat_schedule(timedelta(seconds=5)).values()] == [TASK]


@given(st.floats(0.1, 3600))
def test_a_sweep_expires_after_a_few_of_its_intervals(seconds: float) -> None:
    sweep = beat_schedule(timedelta(seconds=seconds))["sweep"]

    assert (sweep["task"], sweep["schedule"]) == (TASK, timedelta(seconds=seconds))
    assert sweep["options"]["queue"] == SWEEP_QUEUE
    assert seconds < sweep["options"]["expires"] <= 5 * seconds


def test_the_sweep_has_a_queue_that_is_read() -> None:
    assert SWEEP_QUEUE in QUEUES
