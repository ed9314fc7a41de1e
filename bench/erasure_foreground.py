"""What an application notices of an erasure: the 99th percentile of its small reads and writes, and when idle.

The application of ``bench.migrations_app`` works on a collection of its own, which the second look reads, too.
"""

import statistics
import time
from collections.abc import Callable

from bench.erasure_people import People, delete_by_id, open_people
from bench.harness import Verdicts
from bench.migrations_foreground import KINDS, SHORTEST, SIDES, SLOWER, line, open_application
from bench.migrations_things import COLLECTION, fill

THINGS = 100_000


def foreground(documents: int, rounds: int, rate: float) -> Verdicts:
    """Compare the latencies beside our erasure with those of an idle server; bare deletes are shown, too."""
    verdicts = Verdicts()
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with open_people() as people:
        fill(people.bench.admin, THINGS)
        people.bench.admin.app[COLLECTION].create_index("number")
        people.erase(people.add(1, 1000)[0])  # makes what the engine needs
        with open_application(people.bench, THINGS, rate) as application:
            application.beside(lambda: time.sleep(SHORTEST))
            for number in range(rounds):
                for side in SIDES if number % 2 else SIDES[::-1]:
                    work = _work(side, people, documents)
                    people.rest()
                    began = time.perf_counter()
                    found[side].append(application.beside(work))
                    verdicts.say(line(side, found[side][-1], time.perf_counter() - began))
    for kind in KINDS:
        for side in ("bare", "ours"):
            pairs = zip(found[side], found["idle"], strict=True)
            ratio = statistics.median(beside[f"{kind}_p99"] / idle[f"{kind}_p99"] for beside, idle in pairs)
            if side == "bare":
                verdicts.say(f"p99 of {kind}s beside bare deletes: {ratio:.1f} times as long as idle")
            else:
                verdicts.at_most(f"p99 of {kind}s beside our erasure, by that of an idle server", ratio, SLOWER)
    return verdicts


def _work(side: str, people: People, documents: int) -> Callable[[], None]:
    if side == "idle":
        return lambda: time.sleep(SHORTEST)
    (person,) = people.add(1, documents)
    if side == "ours":
        return lambda: people.erase(person)
    return lambda: delete_by_id(people, person)
