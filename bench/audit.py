"""What the sealed audit log costs: ``python -m bench.audit files|mongo|sealing`` (``--help`` for sizes).

Entries per second and peak memory of the verification of a segment, that is of the log as files.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.audit_sealing import sealing
from bench.audit_verifying import verifying
from bench.harness import Verdicts, seconds
from compliance.audit.checkpoint import Checkpoint, sign_checkpoint
from compliance.audit.keys import SigningKey
from compliance.audit.merkle import Frontier, leaf_hash
from compliance.audit.segment import write_segment

ORIGIN = "bench.example/log"
KEY = SigningKey.from_seed(ORIGIN, b"b" * 32)
ENTRY_BYTES = 900
FLOOR = 150_000  # entries per second
FLAT = 1.2  # memory at ten times the entries


def entries(count: int) -> Iterator[bytes]:
    """Yield *count* entries of 900 bytes, all different."""
    filling = b"x" * (ENTRY_BYTES - 20)
    return (b"%020d" % number + filling for number in range(count))


def write(folder: Path, count: int) -> Path:
    """Write a segment of *count* entries below *folder* and return it."""
    root = Frontier().extended(map(leaf_hash, entries(count))).root
    checkpoint = sign_checkpoint(Checkpoint(origin=ORIGIN, size=count, root=root), [KEY])
    path = folder / str(count)
    write_segment(path, leaves=entries(count), checkpoint=checkpoint)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One verification, in a process of its own.

    Attributes:
        rate: Entries per second, from the start of the verification to its end.
        peak_kb: The largest resident memory of that process and of the largest that it started, together.
    """

    rate: float
    peak_kb: int


def verify(path: Path, count: int) -> Verification:
    """Verify the segment at *path* in a new process."""
    command = [sys.executable, "-m", "bench.audit_files", str(path), KEY.verifier.vkey]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if found["entries"] != count or found["found"]:
        raise SystemExit(f"{found['found']} findings in {found['entries']} of {count} entries")
    return Verification(rate=count / found["seconds"], peak_kb=found["peak_kb"])


def files(count: int, rounds: int) -> None:
    """Measure the verification of *count* entries, and of a tenth of them."""
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for size in (count // 10, count):
            took = seconds(partial(write, Path(folder), size))
            verdicts.say(f"writing {size:,} entries took {took:.1f} s")
        small = [verify(Path(folder, str(count // 10)), count // 10) for _ in range(rounds)]
        large = [verify(Path(folder, str(count)), count) for _ in range(rounds)]
    verdicts.say(f"entries/s of {count:,}: " + ", ".join(f"{found.rate:,.0f}" for found in large))
    rate = statistics.median(found.rate for found in large)
    verdicts.at_least(f"entries/s from files beside the floor of {FLOOR:,}", rate / FLOOR, 1.0)
    peaks = [statistics.median(found.peak_kb for found in side) for side in (large, small)]
    verdicts.say(f"peak MB: {peaks[0] / 1024:.0f} with {count:,} entries, {peaks[1] / 1024:.0f} with {count // 10:,}")
    verdicts.at_most("peak memory at ten times the entries", peaks[0] / peaks[1], FLAT)
    verdicts.end()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What the sealed audit log costs.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    measured = commands.add_parser("files", help="verify the log as files")
    measured.add_argument("--entries", type=int, default=1_000_000)
    measured.add_argument("--rounds", type=int, default=3)
    measured = commands.add_parser("mongo", help="verify the log in MongoDB")
    measured.add_argument("--entries", type=int, default=1_000_000)
    measured.add_argument("--rounds", type=int, default=3)
    measured = commands.add_parser("sealing", help="write entries that are sealed beside plain documents")
    measured.add_argument("--rounds", type=int, default=9)
    measured.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    match options.command:
        case "files":
            files(options.entries, options.rounds)
        case "mongo":
            verifying(options.entries, options.rounds)
        case _:
            sealing(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
