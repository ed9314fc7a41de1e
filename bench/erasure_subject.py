"""One person with many documents: the whole erasure beside deletes by ``_id`` in batches, and beside rows one by one.

Ours is the job from its claim to its end: the plan with its counts, a transaction for each batch with the fence, the
checkpoint and a signed audit entry, two looks through every collection, the surfaces and the statement of the
certificate. The bare deletes find the ids, delete, and know nothing afterwards.
"""

import os
import subprocess
import sys
from pathlib import Path

from bench.erasure_people import People, delete_by_id, delete_row_by_row, open_people
from bench.harness import Verdicts, alternate, median_ratio, seconds

RATE = 0.8  # of bare deletes by _id
TIMES = 50  # the rate of rows one by one
SAMPLE = 1000  # of the rows, since all of them take minutes
FLAT = 1.1  # peak memory at ten times the documents


def subject(documents: int, rounds: int) -> Verdicts:
    """Compare the rates over one person with *documents*, in turn; each turn is about another person."""
    verdicts = Verdicts()
    with open_people() as people:
        people.add(documents // 10, 10)
        people.erase(people.add(1, 1000)[0])  # makes what the engine needs
        pairs = alternate(rounds, lambda: _ours(people, documents), lambda: _bare(people, documents))
        rows = [_rows(people) for _ in range(rounds)]
    for name, rates in zip(("ours", "bare"), zip(*pairs, strict=True), strict=True):
        verdicts.say(f"{name}, documents/s of {documents:,}: " + ", ".join(f"{rate:,.0f}" for rate in rates))
    verdicts.say(f"row by row, documents/s of a sample of {SAMPLE:,}: " + ", ".join(f"{rate:,.0f}" for rate in rows))
    verdicts.at_least("rate of the whole erasure beside bare deletes by _id", median_ratio(pairs), RATE)
    beside = [(ours, row) for (ours, _), row in zip(pairs, rows, strict=True)]
    verdicts.at_least("rate of the whole erasure beside rows one by one (sampled)", median_ratio(beside), TIMES)
    return verdicts


def memory(documents: int) -> Verdicts:
    """Compare the peak memory of a process that erases a person of *documents* with one of a tenth of them."""
    verdicts = Verdicts()
    peaks = []
    for size in (documents, documents // 10):
        with open_people() as people:
            (person,) = people.add(1, size)
            peaks.append(_peak_mb(people, str(person)))
            people.check_gone([person])
    verdicts.say(f"peak MB: {peaks[0]:.0f} with {documents:,} documents, {peaks[1]:.0f} with {documents // 10:,}")
    verdicts.at_most("peak memory at ten times the documents", peaks[0] / peaks[1], FLAT)
    return verdicts


def _ours(people: People, documents: int) -> float:
    (person,) = people.add(1, documents)
    people.rest()
    took = seconds(lambda: people.erase(person))
    people.check_gone([person])
    return documents / took


def _bare(people: People, documents: int) -> float:
    (person,) = people.add(1, documents)
    people.rest()
    took = seconds(lambda: delete_by_id(people, person))
    people.check_gone([person])
    return documents / took


def _rows(people: People) -> float:
    (person,) = people.add(1, SAMPLE)
    people.rest()
    return SAMPLE / seconds(lambda: delete_row_by_row(people, person, SAMPLE))


def _peak_mb(people: People, *subject_ids: str) -> float:
    environ = {"PATH": os.defpath, **people.bench.environ()}
    command = [sys.executable, "-m", "bench.erasure_process", *subject_ids]
    process = subprocess.Popen(command, env=environ, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the erasure ended with {process.returncode}")
    return used.ru_maxrss / 1024
