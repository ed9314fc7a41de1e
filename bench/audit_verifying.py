"""How fast the log is verified in MongoDB, and with how much memory."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from bench.audit_writer import an_entry
from bench.harness import Bench, Verdicts, open_bench, open_servers, seconds
from compliance.audit.batch import MAX_LEAVES, Batch
from compliance.audit.checkpoint import Checkpoint, sign_checkpoint
from compliance.audit.entry import UNKNOWN_CAUSE
from compliance.audit.leaf import entry_hash
from compliance.audit.seals import Seals
from compliance.audit.tiles import Edge, Tile
from compliance.audit.trust import yearly
from worker.embedded import Stack

FLOOR = 40_000  # entries per second
FLAT = 1.2  # memory at ten times the entries


def fill(bench: Bench, count: int) -> None:
    """Write and seal *count* entries, as writers and sealer would have."""
    audit, addresses = bench.admin.audit, bench.addresses
    for name in ("audit_log", "audit_batches", "audit_checkpoints", "audit_tiles"):
        audit[name].delete_many({})
    writer, edge, seals = addresses.writer("bench"), Edge(), Seals(bench.admin)
    for start in range(0, count, MAX_LEAVES):
        writer.begin()
        signed = (writer.sign(an_entry(), UNKNOWN_CAUSE)[0] for _ in range(min(MAX_LEAVES, count - start)))
        documents = list(signed)
        writer.commit()
        audit["audit_log"].insert_many(documents)
        leaves = tuple(map(entry_hash, documents))
        edge, tiles = edge.extended(leaves)
        frontier, log = edge.frontier, documents[0]["log"]
        ids = tuple(document["_id"] for document in documents)
        now = datetime.now(UTC)
        batch = Batch(log=log, ids=ids, leaves=leaves, frontier=frontier, sealed_at=now, token=f"{start:020d}")
        insert(bench, batch, tiles)
        checkpoint = Checkpoint(origin=log, size=frontier.size, root=frontier.root)
        note = sign_checkpoint(checkpoint, [yearly(addresses.log_key(), log)])
        seals.checkpoints.add(log, frontier.size, note)


def insert(bench: Bench, batch: Batch, tiles: list[tuple[Tile, bytes]]) -> None:
    """Insert *batch* and its full tiles."""
    bench.admin.transact(lambda session: Seals(bench.admin).add_batch(batch, tiles, session=session))


@contextmanager
def filled(stack: Stack, verdicts: Verdicts, count: int) -> Iterator[Bench]:
    """Provision a database with a log of *count* entries for the block."""
    with open_bench(stack, f"bench_{count}") as bench:
        took = seconds(lambda: fill(bench, count))
        verdicts.say(f"filling a log with {count:,} entries took {took:.0f} s")
        yield bench


def verify(bench: Bench, count: int) -> tuple[float, int]:
    """Verify in a process of its own; return entries per second and peak memory in KiB."""
    endpoints, name = bench.addresses.endpoints, bench.admin.name
    if endpoints is None:
        raise ValueError("a benchmark runs on servers of its own")
    environ = bench.environ() | {
        "COMPLIANCE_AUDITOR_URI": endpoints.mongodb_uri("compliance_auditor", auth_source=f"{name}_compliance"),
    }
    command = [sys.executable, "-m", "bench.audit_mongo"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ | environ).stdout)
    if found["entries"] != count or found["found"]:
        raise SystemExit(f"{found['found']} in {found['entries']} of {count} entries")
    return count / found["seconds"], found["peak_kb"]


def verifying(count: int, rounds: int) -> None:
    """Measure the verification of *count* entries, and of a tenth of them."""
    verdicts = Verdicts()
    with open_servers() as stack:
        with filled(stack, verdicts, count // 10) as bench:
            small = [verify(bench, count // 10) for _ in range(rounds)]
        with filled(stack, verdicts, count) as bench:
            large = [verify(bench, count) for _ in range(rounds)]
    verdicts.say(f"entries/s of {count:,}: " + ", ".join(f"{rate:,.0f}" for rate, _ in large))
    rate = statistics.median(rate for rate, _ in large)
    verdicts.at_least(f"entries/s from MongoDB beside the floor of {FLOOR:,}", rate / FLOOR, 1.0)
    peaks = [statistics.median(peak for _, peak in side) for side in (large, small)]
    verdicts.say(f"peak MB: {peaks[0] / 1024:.0f} with {count:,} entries, {peaks[1] / 1024:.0f} with {count // 10:,}")
    verdicts.at_most("peak memory at ten times the entries", peaks[0] / peaks[1], FLAT)
    verdicts.end()
