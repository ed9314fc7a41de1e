"""The rate of our backfill beside one bare ``update_many``, and the memory of its process.

Ours is a transaction for each batch: the fence, the change, the checkpoint and a signed audit entry. How far a bare
command came that dies is not known. The asked ratio is what that may cost.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.harness import Verdicts, alternate, median_ratio, seconds
from bench.migrations_things import Things, open_things

RATE = 0.8  # of a bare update_many
FLAT = 1.1  # peak memory at ten times the documents


def backfill(documents: int, rounds: int) -> Verdicts:
    """Compare the rates over *documents*, in turn."""
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open_things(documents, Path(folder)) as things:
        ours, bare = (partial(_rate, things, change) for change in (things.change_ours, things.change_bare))
        pairs = alternate(rounds, ours, bare)
    for name, rates in zip(("ours", "bare"), zip(*pairs, strict=True), strict=True):
        verdicts.say(f"{name}, documents/s of {documents:,}: " + ", ".join(f"{rate:,.0f}" for rate in rates))
    verdicts.at_least("rate of the fenced backfill beside a bare update_many", median_ratio(pairs), RATE)
    return verdicts


def memory(documents: int) -> Verdicts:
    """Compare the peak memory of our command over *documents* with that over a tenth of them."""
    verdicts = Verdicts()
    peaks = []
    for size in (documents, documents // 10):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, open_things(size, Path(folder)) as things:
            peaks.append(_peak_mb(things))
    verdicts.say(f"peak MB: {peaks[0]:.0f} with {documents:,} documents, {peaks[1]:.0f} with {documents // 10:,}")
    verdicts.at_most("peak memory at ten times the documents", peaks[0] / peaks[1], FLAT)
    return verdicts


def _rate(things: Things, change: Callable[[], None]) -> float:
    things.rest()
    return things.documents / seconds(change)


def _peak_mb(things: Things) -> float:
    things.write_script()
    environ = {"PATH": os.defpath, **things.environ()}
    command = [sys.executable, "-m", "migrations"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the migration ended with {process.returncode}")
    return used.ru_maxrss / 1024
