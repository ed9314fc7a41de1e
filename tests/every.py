"""Something done for every n, side by side."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any

import pytest

LANES = 5  # most of their time they wait for a lease or a server
FEWEST = {"count.batches": 14, "count.once": 5}  # commands of an undisturbed attempt, at the least


def sampled(numbers: Iterable[Any], *, each: int = 3) -> list[Any]:
    """Return *numbers* as parameters: every run meets one in so many, `make test-storm` the others."""
    storm = pytest.mark.storm
    return [pytest.param(n, marks=() if place % each == 0 else storm) for place, n in enumerate(numbers)]


def every(meet: Callable[[int, int], bool], numbers: Iterable[int] | None = None, *, lanes: int = LANES) -> int:
    """Call *meet* with 1, 2, … or *numbers*, and a lane, until it returns that nothing happened any more.

    No lane is used twice at the same time.

    Returns:
        How many of them met something.
    """
    waiting = iter(count(1) if numbers is None else numbers)
    met = 0
    with ThreadPoolExecutor(lanes) as pool:
        while group := list(islice(waiting, lanes)):
            results = list(pool.map(meet, group, range(lanes)))
            met += sum(results)
            if not all(results):
                break
    return met
