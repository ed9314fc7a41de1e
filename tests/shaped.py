"""An online change of the names of people, two applications that write them, and what must be true at the end."""

import random
import re
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment import Deployment
from migrated import ROOT, write_scripts
from pymongo.errors import PyMongoError

from compliance.clock import SystemClock
from compliance.roles import Role
from migrations.online.feed import present_moment
from migrations.online.follow import Follower, open_changes
from migrations.online.state import wait_until_followed

NAME = "v001_data_names"
PEOPLE = "people"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/migrations.md").read_text(encoding="utf-8"), re.DOTALL)
(BLOCK,) = (block for block in BLOCKS if "CHANGE = Shape(" in block)
SCRIPT = textwrap.indent(f"\n{BLOCK}", " " * 8)  # what the documentation shows is what is tested
LATER = '''
        """Look at people."""


        def up(ctx):
            """Look."""
            ctx.verify("people", none={"first": {"$exists": False}})


        def down(ctx):
            """Nothing."""
            ctx.report("nothing")
'''


def shaped(empty: Deployment, folder: Path, *, people: int = 40, later: bool = False, **settings: Any) -> Deployment:
    """A database of people in the old shape, and a folder with the change."""
    scripts = write_scripts(
        folder / "scripts", {f"{NAME}.py": SCRIPT} | ({"v002_post_look.py": LATER} if later else {})
    )
    if people:
        empty.admin.app[PEOPLE].insert_many([{"_id": n, "name": f"A{n} B{n}", "other": 0} for n in range(people)])
    return empty.with_settings(migrations=scripts, **({"batch_docs": 7} | settings))


def agree(document: dict[str, Any]) -> bool:
    """Whether the shapes of a document agree."""
    return bool(document.get("name") == f"{document.get('first')} {document.get('last')}")


@dataclass
class Applications:
    """The old and the new application: each writes its own shape only, and remembers what was acknowledged."""

    deployment: Deployment
    ids: list[Any]
    seed: int = 1
    last: dict[Any, tuple[str, str]] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=lambda: {"old": 0, "new": 0})
    guard: dict[Any, threading.Lock] = field(default_factory=dict)

    @contextmanager
    def writing(self, *versions: str, pause: float = 0.02) -> Iterator[None]:
        """Let applications write for the block; one document is written by one at a time, so that one is the last."""
        ended = threading.Event()
        self.guard = {id_: threading.Lock() for id_ in self.ids}
        threads = [
            threading.Thread(target=self._write, args=(version, number, ended, pause))
            for number, version in enumerate(versions)
        ]
        with ExitStack() as cleanup:
            for thread in threads:
                thread.start()
                cleanup.callback(thread.join)
            cleanup.callback(ended.set)
            yield

    def _write(self, version: str, number: int, ended: threading.Event, pause: float) -> None:
        chosen, people = random.Random(self.seed * 31 + number), self.deployment.admin.app[PEOPLE]
        count = 0
        while not ended.wait(pause):
            id_, count = chosen.choice(self.ids), count + 1
            # Never what a document holds already: a write that changes nothing leaves nothing in the oplog to go by.
            first, last = f"{version}{number}", f"w{self.seed}x{count}"
            update = {"name": f"{first} {last}"} if version == "old" else {"first": first, "last": last}
            with self.guard[id_]:
                self.last.pop(id_, None)  # of a write that is not acknowledged nobody knows whether it is there
                with suppress(PyMongoError):
                    people.update_one({"_id": id_}, {"$set": update, "$inc": {"other": 1}})
                    self.last[id_] = (first, last)
                    self.written[version] += 1

    def lost(self, *fields: str) -> list[Any]:
        """The documents that do not hold the last write that was acknowledged, in these fields."""
        found = {one["_id"]: one for one in self.deployment.admin.app[PEOPLE].find()}
        wanted = {
            id_: {"first": first, "last": last, "name": f"{first} {last}"} for id_, (first, last) in self.last.items()
        }
        return [id_ for id_, one in wanted.items() if any(found[id_].get(name) != one[name] for name in fields)]


def follower(deployment: Deployment, **changes: Any) -> Follower:
    """What keeps the change in step, in the thread that calls ``run``."""
    runner = deployment.runner(databases=deployment.services(Role.MIGRATOR).databases)
    (change,) = open_changes(runner.databases)
    return Follower(
        **{
            "databases": runner.databases,
            "change": change,
            "clock": runner.clock,
            "actor": "test",
            "length": deployment.settings.lease,
            "should_stop": lambda: False,
            **changes,
        }
    )


def wait_until_in_step(deployment: Deployment) -> None:
    """Wait until everything that was written before this call is in step; somebody must be at it."""
    moment = present_moment(deployment.admin)
    wait_until_followed(deployment.admin, NAME, moment, leaving=None, sleep=SystemClock().sleep)
