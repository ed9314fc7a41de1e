"""What an application notices: the 99th percentile of small reads and writes beside a backfill, and when idle.

The application is another process with a steady rate, and works on documents of the collection that is changed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Bench, Verdicts
from bench.migrations_things import COLLECTION, open_things

SLOWER = 2.0
SHORTEST = 10.0
SIDES = ("idle", "bare", "ours")
KINDS = ("read", "write")


@dataclass(frozen=True, slots=True)
class Application:
    """The process that works beside the migration."""

    process: subprocess.Popen[str]

    def take(self) -> dict[str, float]:
        """Return what it measured since the last time."""
        if self.process.stdin is None or self.process.stdout is None:
            raise SystemExit("the application has no pipes")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def beside(self, work: Callable[[], object]) -> dict[str, float]:
        """Return what it measured during *work*."""
        self.take()
        work()
        return self.take()


def foreground(documents: int, rounds: int, rate: float) -> Verdicts:
    """Compare the latencies beside our backfill with those of an idle server; a bare command is shown, too."""
    verdicts = Verdicts()
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open_things(documents, Path(folder)) as things:
        work = {"idle": lambda: time.sleep(SHORTEST), "bare": things.change_bare, "ours": things.change_ours}
        things.bench.admin.app[COLLECTION].create_index("number")
        with open_application(things.bench, documents, rate) as application:
            application.beside(work["idle"])
            for number in range(rounds):
                for side in SIDES if number % 2 else SIDES[::-1]:
                    things.rest()
                    began = time.perf_counter()
                    found[side].append(application.beside(work[side]))
                    verdicts.say(line(side, found[side][-1], time.perf_counter() - began))
    for kind in KINDS:
        for side in ("bare", "ours"):
            ratio = statistics.median(
                beside[f"{kind}_p99"] / idle[f"{kind}_p99"]
                for beside, idle in zip(found[side], found["idle"], strict=True)
            )
            if side == "bare":
                verdicts.say(f"p99 of {kind}s beside a bare update_many: {ratio:.1f} times as long as idle")
            else:
                verdicts.at_most(f"p99 of {kind}s beside our backfill, by that of an idle server", ratio, SLOWER)
    return verdicts


def line(side: str, found: dict[str, float], took: float) -> str:
    """Return what was measured, for people."""
    shown = ", ".join(f"{kind} p50 {found[f'{kind}_p50']:.1f} p99 {found[f'{kind}_p99']:.1f}" for kind in KINDS)
    return f"{side}: {shown} ms over {took:.0f} s ({found['reads']} reads, {found['writes']} writes)"


@contextmanager
def open_application(bench: Bench, documents: int, rate: float) -> Iterator[Application]:
    """Let an application work on *documents* things, so many times a second, for the block."""
    endpoints = bench.addresses.endpoints
    if endpoints is None:
        raise ValueError("a benchmark runs on servers of its own")
    environ = {
        "PATH": os.defpath,
        "BENCH_URI": endpoints.mongodb_uri("admin", auth_source="admin"),
        "BENCH_DATABASE": bench.admin.name,
    }
    command = [sys.executable, "-m", "bench.migrations_app", str(rate), str(documents)]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            yield Application(process)
        finally:
            process.kill()
