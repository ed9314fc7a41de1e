"""The same change through ``pymongo-migrate`` and ``mongomig``, each as the command its users start.

They are installed into an environment of their own when they are asked for: neither is a dependency of ours. What they
are compared with does more: of the three only ours counts every document once when its process is killed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Verdicts, median_ratio, seconds
from bench.migrations_things import COLLECTION, Things, open_things, update, where

PACKAGES = ("pymongo-migrate", "mongomig")
VERSIONS = (
    "import sys, importlib.metadata as m; print(*(f'{name} {m.version(name)}' for name in sys.argv[1:]), sep=', ')"
)
BARE_SCRIPT = '''"""Change all things."""
name = {name!r}
dependencies = {before!r}


def upgrade(db):
    db[{collection!r}].update_many({where}, {update})


def downgrade(db):
    pass
'''
BATCHES_SCRIPT = '''"""Change all things."""
revision = {name!r}
down_revision = {before!r}
branch_labels = None
depends_on = None
reversible = True
snapshot_hash = None
mongomig_format = 1


def upgrade(ctx):
    ctx.ops.backfill({collection!r}, {where}, {update})


def downgrade(ctx):
    pass
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The contenders, in one folder with their environment and their scripts."""

    things: Things
    home: Path

    def install(self) -> str:
        """Install them; return their versions."""
        subprocess.run([sys.executable, "-m", "venv", self.home / "venv"], check=True)
        subprocess.run([self._bin("pip"), "install", "--quiet", *PACKAGES], check=True, stderr=subprocess.DEVNULL)
        (self.home / "bare").mkdir()
        subprocess.run([self._bin("mongomig"), "init"], cwd=self.home, check=True, capture_output=True)
        asked = [self._bin("python"), "-c", VERSIONS, *PACKAGES]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()

    def ours(self) -> None:
        """Change all with our command."""
        self.things.write_script()
        self._run([sys.executable, "-m", "migrations"], self.things.environ())

    def pymongo_migrate(self) -> None:
        """Change all with ``pymongo-migrate``: it has no batches, so its script is one ``update_many``."""
        folder = self.home / "bare"
        name = self._write(folder, BARE_SCRIPT, "change_{:03d}", lambda last: [last] if last else [])
        bench = self.things.bench
        command = [self._bin("pymongo-migrate"), "upgrade", name, "-u", self._uri, "-d", bench.admin.name]
        self._run([*command, "-m", str(folder)], {})

    def mongomig(self) -> None:
        """Change all with the backfill of ``mongomig``: batches with a checkpoint behind each."""
        self._write(self.home / "migrations" / "versions", BATCHES_SCRIPT, "{:012x}", lambda last: last)
        environ = {"MONGODB_URI": self._uri, "MONGODB_DATABASE": self.things.bench.admin.name}
        self._run([self._bin("mongomig"), "upgrade", "--yes"], environ)

    def _write(self, folder: Path, text: str, pattern: str, before: Callable[[str | None], object]) -> str:
        """Write the script of the next change behind the last one; return its name."""
        label, last = self.things.label(), max((path.stem for path in folder.glob("*.py")), default=None)
        name = pattern.format(self.things.changes)
        script = text.format(
            name=name, before=before(last), collection=COLLECTION, where=where(label), update=update(label)
        )
        (folder / f"{name}.py").write_text(script, encoding="utf-8")
        return name

    @property
    def _uri(self) -> str:
        endpoints = self.things.bench.addresses.endpoints
        if endpoints is None:
            raise ValueError("a benchmark runs on servers of its own")
        return f"{endpoints.mongodb_uri('admin', auth_source='admin')}&w=majority"

    def _bin(self, name: str) -> str:
        return str(self.home / "venv" / "bin" / name)

    def _run(self, command: Sequence[str], environ: dict[str, str]) -> None:
        done = subprocess.run(
            command, env={"PATH": os.defpath, **environ}, cwd=self.home, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr or done.stdout}")


def peers(documents: int, rounds: int) -> Verdicts:
    """Measure all three in turn, each a process of its own from its start to its end."""
    verdicts = Verdicts()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scripts,
        tempfile.TemporaryDirectory(prefix="bench-") as home,
        open_things(documents, Path(scripts)) as things,
    ):
        contenders = Peers(things=things, home=Path(home))
        verdicts.say(f"peers: {contenders.install()}")
        work = {"ours": contenders.ours, "pymongo-migrate": contenders.pymongo_migrate, "mongomig": contenders.mongomig}
        rates: dict[str, list[float]] = {name: [] for name in work}
        for number in range(rounds):
            for name in list(work)[:: -1 if number % 2 else 1]:
                things.rest()
                rates[name].append(documents / seconds(work[name]))
    for name, found in rates.items():
        verdicts.say(f"{name}, documents/s of {documents:,}: " + ", ".join(f"{rate:,.0f}" for rate in found))
    for name in PACKAGES:
        pairs = zip(rates["ours"], rates[name], strict=True)
        verdicts.say(f"ours beside {name}: {median_ratio(list(pairs)):.2f} times its rate")
    return verdicts
