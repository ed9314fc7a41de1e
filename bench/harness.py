"""What every benchmark shares: servers with a migrated database, alternating runs, and a verdict by ratio.

An absolute time says more about the machine than about the code, so nothing passes or fails by one: two things are
measured in turn in one process group, and the median of their ratios is compared with a bound.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compliance.mongo import Databases, open_client
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.embedded import Stack, open_stack
from worker.up import migrate, provision_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One provisioned and migrated application database on servers of its own.

    Attributes:
        admin: The databases as the administrator: to fill and to look.
    """

    addresses: Addresses
    admin: Databases
    home: Path

    def environ(self) -> dict[str, str]:
        """Return the environment of a process that works on this database, beside that of this one."""
        endpoints, name = self.addresses.endpoints, self.admin.name
        if endpoints is None:
            raise ValueError("a benchmark runs on servers of its own")
        return {
            "MONGODB_DATABASE": name,
            "MONGODB_URI": endpoints.mongodb_uri("compliance_worker", auth_source=f"{name}_compliance"),
            "COMPLIANCE_SEALER_URI": endpoints.mongodb_uri("compliance_sealer", auth_source=f"{name}_compliance"),
            "COMPLIANCE_WRITER_KEY": self.addresses.writer("bench").key.skey,
            "COMPLIANCE_LOG_KEY": self.addresses.log_key().skey,
            "REDIS_URL": endpoints.redis_url,
            "COMPLIANCE_HOME": str(self.home),
            "COMPLIANCE_LOG_LEVEL": "WARNING",
        }


@contextmanager
def open_servers() -> Iterator[Stack]:
    """Run MongoDB and Valkey in a temporary folder for the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home, open_stack(Path(home)) as stack:
        yield stack


@contextmanager
def open_bench(stack: Stack, name: str) -> Iterator[Bench]:
    """Provision and migrate the application database *name* for the block."""
    settings = Settings.model_validate({"MONGODB_DATABASE": name, "COMPLIANCE_HOME": stack.home})
    provision_stack(settings, stack.endpoints)
    addresses = Addresses(settings, stack.endpoints)
    migrate(addresses, lambda _: None)
    with ExitStack() as cleanup:
        uri = stack.endpoints.mongodb_uri("admin", auth_source="admin")
        admin = cleanup.enter_context(open_client(uri, app_name="bench"))
        yield Bench(addresses=addresses, admin=Databases(admin, name), home=stack.home)


@dataclass(slots=True)
class Verdicts:
    """What was measured, line by line, and whether all of it is within its bounds."""

    missed: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Print a line that decides nothing."""
        print(line, flush=True)

    def at_least(self, what: str, ratio: float, bound: float) -> None:
        """Note that *ratio* should be *bound* or more."""
        self._note(what, ratio, bound, "at least", is_met=ratio >= bound)

    def at_most(self, what: str, ratio: float, bound: float) -> None:
        """Note that *ratio* should be *bound* or less."""
        self._note(what, ratio, bound, "at most", is_met=ratio <= bound)

    def end(self) -> None:
        """End the process: 0 when every bound is met, 1 when not."""
        sys.exit(1 if self.missed else 0)

    def _note(self, what: str, ratio: float, bound: float, word: str, *, is_met: bool) -> None:
        self.say(f"{'ok    ' if is_met else 'MISSED'}  {what}: {ratio:.2f} ({word} {bound:g})")
        if not is_met:
            self.missed.append(what)


def alternate(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> list[tuple[float, float]]:
    """Measure *first* and *second* in turn, the order changing with every round; return the pairs."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            later = second()
            pairs.append((first(), later))
        else:
            earlier = first()
            pairs.append((earlier, second()))
    return pairs


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of first/second."""
    return statistics.median(first / second for first, second in pairs)


def seconds(work: Callable[[], object]) -> float:
    """Return how long *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
