"""What sealing costs those who write, and how far a seal lies behind its commit."""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pymongo import IndexModel

from bench.audit_writer import PLAIN, PLAIN_DATABASE, SEALED
from bench.harness import Bench, Verdicts, alternate, median_ratio, open_bench, open_servers
from compliance.audit.schema import INDEXES
from compliance.audit.seals import Seals
from compliance.roles import AUDIT_LOG

PROCESSES, THREADS = 4, 8
SHARE = 0.9
LAG_SECONDS = 2.0
LAG_RATE = 500
PERCENTILE = 95


@dataclass(frozen=True)
class Writers:
    """Processes that write as they are told."""

    processes: Sequence[subprocess.Popen[str]]

    def write(self, kind: str, lasting: float, rate: float = 0.0) -> int:
        """Let all write for *lasting* seconds; return how many transactions committed."""
        for process in self.processes:
            print(kind, lasting, rate / len(self.processes), file=process.stdin, flush=True)
        return sum(int(process.stdout.readline()) for process in self.processes if process.stdout)


@contextmanager
def writers(bench: Bench, processes: int, threads: int) -> Iterator[Writers]:
    """Run writers for the block."""
    environ = os.environ | bench.environ() | {"BENCH_ADMIN_URI": bench.addresses.admin_uri()}
    command = [sys.executable, "-m", "bench.audit_writer", str(threads)]
    running = [
        subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        yield Writers(running)
    finally:
        for process in running:
            process.communicate()


@contextmanager
def sealer(bench: Bench) -> Iterator[None]:
    """Run a watcher for the block."""
    command = [sys.executable, "-m", "worker", "watcher"]
    with (bench.home / "watcher.log").open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | bench.environ(), stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def sealing(rounds: int, lasting: float) -> None:
    """Measure transactions with a sealed entry beside those with a plain document, then the lag of the seals."""
    verdicts = Verdicts()
    with ExitStack() as cleanup:
        bench = cleanup.enter_context(open_bench(cleanup.enter_context(open_servers()), "bench"))
        _index_plain(bench)
        cleanup.enter_context(sealer(bench))
        _wait_until_sealed(bench)
        many = cleanup.enter_context(writers(bench, PROCESSES, THREADS))
        many.write(SEALED, 1)
        many.write(PLAIN, 1)
        pairs = alternate(rounds, lambda: many.write(SEALED, lasting) / lasting, lambda: _quietly(bench, many, lasting))
        verdicts.say("transactions/s, sealed and plain: " + ", ".join(f"{a:.0f} {b:.0f}" for a, b in pairs))
        verdicts.at_least("transactions with a sealed entry beside a plain document", median_ratio(pairs), SHARE)
        _wait_until_sealed(bench)
        lags = _lags(bench, many, 4 * lasting)
        late = statistics.quantiles(lags, n=100)[PERCENTILE - 1]
        verdicts.say(f"lag of a seal at {LAG_RATE} entries/s: p50 {statistics.median(lags):.2f} s, p95 {late:.2f} s")
        verdicts.at_most(f"p95 of the lag beside {LAG_SECONDS:g} s", late / LAG_SECONDS, 1.0)
    verdicts.end()


def _index_plain(bench: Bench) -> None:
    """Give the plain documents the indexes that entries have: any log has to be searched."""
    plain = bench.admin.client[PLAIN_DATABASE][AUDIT_LOG]
    plain.create_indexes([IndexModel(list(keys.items()), name=name) for name, keys in INDEXES.items()])


def _quietly(bench: Bench, many: Writers, lasting: float) -> float:
    """Write plain documents once the sealer has nothing left to do."""
    _wait_until_sealed(bench)
    return many.write(PLAIN, lasting) / lasting


def _sealed(bench: Bench) -> int:
    seals = Seals(bench.admin)
    return sum(batch.end for log in seals.logs() if (batch := seals.last_batch(log)))


def _wait_until_sealed(bench: Bench) -> None:
    end = time.monotonic() + 300
    while _sealed(bench) < bench.admin.audit["audit_log"].estimated_document_count():
        if time.monotonic() > end:
            raise SystemExit("the log is not sealed within 300 s")
        time.sleep(0.1)


def _lags(bench: Bench, many: Writers, lasting: float) -> list[float]:
    """Return how long each entry waited for a signed checkpoint, in seconds.

    Commits are watched as they become visible: how many entries there were at each moment, and how many were signed.
    """
    seen: list[tuple[float, int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            there = bench.admin.audit["audit_log"].estimated_document_count()
            size = next(iter(bench.admin.audit["audit_checkpoints"].find({}, {"_id": 1}, sort={"_id": -1}, limit=1)))
            seen.append((time.monotonic(), there, size["_id"]["size"]))
            time.sleep(0.02)

    watching = threading.Thread(target=watch)
    before = bench.admin.audit["audit_log"].estimated_document_count()
    watching.start()
    written = many.write(SEALED, lasting, LAG_RATE)
    _wait_until_sealed(bench)
    time.sleep(1)
    stop.set()
    watching.join()
    return _waits(seen, before, before + written)


def _waits(seen: Sequence[tuple[float, int, int]], first: int, last: int) -> list[float]:
    committed, signed = iter(seen), iter(seen)
    there, sealed = next(committed), next(signed)
    found = []
    for number in range(first + 1, last + 1):
        while there[1] < number:
            there = next(committed)
        while sealed[2] < number:
            sealed = next(signed)
        found.append(max(0.0, sealed[0] - there[0]))
    return found
