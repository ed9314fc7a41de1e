"""An application beside a migration: small reads and writes at a steady rate, and how long each took.

``python -m bench.migrations_app RATE DOCUMENTS`` does so many operations a second, half of them reads. A latency counts
from the moment when its operation was due, so that one that is late because of the one before it counts, too. Each line
on stdin ends what is measured and begins anew; the answer is one line of JSON.
"""

import json
import os
import random
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field

from bench.migrations_things import COLLECTION
from compliance.mongo import Db, open_client

CLIENTS = 16
READ, WRITE = "read", "write"


@dataclass(slots=True)
class Latencies:
    """In seconds, of what was asked since the last ``take``."""

    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)

    def take(self) -> dict[str, float]:
        """Return what was measured in milliseconds, and begin anew."""
        reads, writes = self.reads, self.writes
        self.reads, self.writes = [], []
        return {
            "reads": len(reads),
            "writes": len(writes),
            **{
                f"{name}_p{percent}": 1000 * statistics.quantiles(found, n=100)[percent - 1]
                for name, found in ((READ, reads), (WRITE, writes))
                if len(found) > 1
                for percent in (50, 99)
            },
        }


def work(app: Db, documents: int, every: float, latencies: Latencies, number: int) -> None:
    """Read or write one document *every* so many seconds, forever; a client waits for its own answer only."""
    chosen = random.Random(number)
    due = time.perf_counter() + every * chosen.random()
    while True:
        time.sleep(max(0.0, due - time.perf_counter()))
        one = {"number": chosen.randrange(documents)}
        if chosen.choice((READ, WRITE)) == READ:
            app[COLLECTION].find_one(one)
            latencies.reads.append(time.perf_counter() - due)
        else:
            app[COLLECTION].update_one(one, {"$inc": {"visits": 1}})
            latencies.writes.append(time.perf_counter() - due)
        due += every


def main() -> None:
    """Work until stdin ends."""
    rate, documents = float(sys.argv[1]), int(sys.argv[2])
    latencies = Latencies()
    with open_client(os.environ["BENCH_URI"], app_name="bench-app") as client:
        app = client[os.environ["BENCH_DATABASE"]]
        for number in range(CLIENTS):
            arguments = (app, documents, CLIENTS / rate, latencies, number)
            threading.Thread(target=work, args=arguments, daemon=True).start()
        for _ in sys.stdin:
            print(json.dumps(latencies.take()), flush=True)


if __name__ == "__main__":
    main()
