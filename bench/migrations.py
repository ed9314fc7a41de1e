"""What the migration engine costs: ``python -m bench.migrations all`` (``--help`` for parts); wants a quiet machine.

``no-op`` applies a folder of scripts, then runs ``up`` on it again, which finds nothing to do. Every start of an
application does that, so it must cost little more than the start of Python with the driver does.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.harness import Bench, Verdicts, alternate, median_ratio, open_bench, open_servers
from bench.migrations_backfill import backfill, memory
from bench.migrations_foreground import foreground
from bench.migrations_peers import peers

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "migrations" / "versions" / "v004_pre_subscription_type.py"
FLOOR = [sys.executable, "-c", "import pymongo, pydantic, yaml, typer"]
FIRST = '''"""Accounts."""


def up(ctx):
    ctx.create_collection("accounts", schema={})


def down(ctx):
    ctx.drop_collection("accounts")
'''
CPU_SECONDS = 1.0
ROUNDS = 5


def no_op(scripts: int) -> Verdicts:
    """Compare the CPU seconds of an ``up`` that has nothing to do with a bound, and with those of mere imports.

    Other work on the machine only adds to CPU seconds, so the least of several rounds is nearest to the truth.
    """
    verdicts = Verdicts()
    with ExitStack() as cleanup:
        folder = _write_folder(Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))), scripts)
        bench = cleanup.enter_context(open_bench(cleanup.enter_context(open_servers()), "noop"))
        environ, up = _environ(bench, folder), [sys.executable, "-m", "migrations"]
        verdicts.say(f"applying {scripts} scripts: {cpu_seconds(up, environ):.2f} s of CPU")
        pairs = alternate(ROUNDS, lambda: cpu_seconds(up, environ), lambda: cpu_seconds(FLOOR, environ))
        spent, floor = min(first for first, _ in pairs), min(second for _, second in pairs)
        verdicts.say(f"imports of others alone: {floor:.2f} s of CPU; median of the ratios {median_ratio(pairs):.2f}")
        verdicts.at_most(f"CPU seconds of an up over {scripts} applied scripts", spent, CPU_SECONDS)
    return verdicts


def cpu_seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    """Return the CPU seconds, user and system, of *command*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _write_folder(home: Path, scripts: int) -> Path:
    """Scripts like one of the reference domain, one after the other; the first makes the collection of the others."""
    folder = home / "scripts"
    folder.mkdir()
    text = SCRIPT.read_text(encoding="utf-8").replace('"users"', '"accounts"')
    (folder / "v001_pre_accounts.py").write_text(FIRST, encoding="utf-8")
    for number in range(2, scripts + 1):
        (folder / f"v{number:03d}_pre_accounts.py").write_text(text, encoding="utf-8")
    return folder


def _environ(bench: Bench, folder: Path) -> dict[str, str]:
    endpoints = bench.addresses.endpoints
    if endpoints is None:
        raise ValueError("a benchmark runs on servers of its own")
    admin = endpoints.mongodb_uri("admin", auth_source="admin")
    fresh = {"MONGODB_DATABASE": f"{bench.admin.name}_many", "COMPLIANCE_MIGRATOR_URI": admin}
    return {"PATH": os.defpath, **bench.environ(), **fresh, "COMPLIANCE_MIGRATIONS": str(folder)}


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], Verdicts]]] = {
    "no-op": ("an up that has nothing to do", lambda given: no_op(given.scripts)),
    "backfill": ("our backfill beside one bare update_many", lambda given: backfill(given.documents, given.rounds)),
    "foreground": (
        "reads and writes of an application beside a backfill, and idle",
        lambda given: foreground(given.documents, given.rounds, given.rate),
    ),
    "memory": ("the peak memory of our command", lambda given: memory(given.documents)),
    "peers": ("pymongo-migrate and mongomig (installs them)", lambda given: peers(given.documents, given.rounds)),
}
ALL = "all"


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.migrations", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in {**{name: what for name, (what, _) in PARTS.items()}, ALL: "everything"}.items():
        part = commands.add_parser(name, help=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        part.add_argument("--scripts", type=int, default=500, help="how many are applied, for no-op")
        part.add_argument("--documents", type=int, default=1_000_000, help="how many are changed")
        part.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
        part.add_argument("--rate", type=float, default=100, help="operations a second of the application")
    given = parser.parse_args()
    whole = Verdicts()
    for name in PARTS if given.command == ALL else [given.command]:
        _, measure = PARTS[name]
        whole.missed += measure(given).missed
    whole.end()


if __name__ == "__main__":
    main()
