"""The documents that migrations are measured on, and the change of all of them that every contender makes.

A change adds the price to the total of each document, so that the totals say in the end whether each document was
changed exactly once, and puts its label on the document, which takes it out of the filter. All changes cost the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import Bench, open_servers
from compliance.mongo import Databases, Document, open_client
from compliance.roles import Role
from compliance.settings import Settings
from migrations.migrate import build_runner
from worker.addresses import Addresses
from worker.services import connect
from worker.up import provision_stack

COLLECTION = "things"
PRICE = 3
FILLING = "x" * 170  # with the other fields about 300 bytes
INSERT_AT_ONCE = 10_000
CACHE_MB, OPLOG_MB = 2048, 8192.0  # the servers of a demonstration have less than one round writes
SCRIPT = '''"""Change all things: {label}."""


def up(ctx):
    """Change."""
    ctx.backfill("{collection}", where={where}, update={update})


def down(ctx):
    """Nothing: what was added stays."""
'''


@dataclass(slots=True, kw_only=True)
class Things:
    """A collection of a database of its own, and a folder of scripts that change it.

    Attributes:
        documents: How many the collection holds.
        changes: How many times all of them were changed.
    """

    bench: Bench
    documents: int
    folder: Path
    changes: int = field(default=0, init=False)

    def label(self) -> str:
        """Return the label of the next change; all have one length."""
        self.changes += 1
        return f"change-{self.changes:03d}"

    def change_bare(self) -> None:
        """Change all with one command: no fence, no checkpoint, no trail, and nobody knows where it stopped."""
        label = self.label()
        self.bench.admin.app[COLLECTION].update_many(where(label), update(label))

    def change_ours(self) -> None:
        """Change all with a script of ours."""
        databases = connect(self.bench.addresses, Role.MIGRATOR, app_name="bench")
        with databases.client:
            name = self.write_script()
            build_runner(self.settings, databases, actor="bench", report=lambda _: None).up(name)

    def write_script(self) -> str:
        """Write the script of the next change; return its name."""
        label = self.label()
        name = f"v{self.changes:03d}_data_change"
        text = SCRIPT.format(label=label, collection=COLLECTION, where=where(label), update=update(label))
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    @property
    def settings(self) -> Settings:
        """What the commands of ours read."""
        return self.bench.addresses.settings.model_copy(update={"migrations": self.folder})

    def environ(self) -> dict[str, str]:
        """Return the environment of a process that runs our command on the scripts."""
        endpoints = self.bench.addresses.endpoints
        if endpoints is None:
            raise ValueError("a benchmark runs on servers of its own")
        own = f"{self.bench.admin.name}_compliance"
        migrator = endpoints.mongodb_uri(Role.MIGRATOR.value, auth_source=own)
        return {
            **self.bench.environ(),
            "COMPLIANCE_MIGRATOR_URI": migrator,
            "COMPLIANCE_MIGRATIONS": str(self.folder),
        }

    def rest(self) -> None:
        """Let the server write what the last contender left in its cache, so that the next one does not."""
        self.bench.admin.client.admin.command("fsync")

    def check(self) -> None:
        """Return if every change was made exactly once to every document."""
        total = self.changes * PRICE
        wrong = self.bench.admin.app[COLLECTION].count_documents({"total": {"$ne": total}})
        if wrong:
            raise SystemExit(f"{wrong} of {self.documents} documents were not changed exactly {self.changes} times")


def where(label: str) -> Document:
    """Return the filter of what a change has not changed yet."""
    return {"label": {"$ne": label}}


def update(label: str) -> list[Document]:
    """Return the change."""
    return [{"$set": {"label": label, "total": {"$add": ["$total", "$price"]}}}]


@contextmanager
def open_things(documents: int, folder: Path) -> Iterator[Things]:
    """Run servers that hold *documents* for the block, and keep scripts in *folder*."""
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(open_servers())
        settings = Settings.model_validate({"MONGODB_DATABASE": "bench", "COMPLIANCE_HOME": stack.home})
        provision_stack(settings, stack.endpoints)
        uri = stack.endpoints.mongodb_uri("admin", auth_source="admin")
        admin = Databases(cleanup.enter_context(open_client(uri, app_name="bench")), settings.mongodb_database)
        _grow(admin)
        fill(admin, documents)
        bench = Bench(addresses=Addresses(settings, stack.endpoints), admin=admin, home=stack.home)
        things = Things(bench=bench, documents=documents, folder=folder)
        things.change_ours()  # makes what the engine needs, and brings the collection into the cache
        yield things
        things.check()


def _grow(admin: Databases) -> None:
    client = admin.client.admin
    client.command({"setParameter": 1, "wiredTigerEngineRuntimeConfig": f"cache_size={CACHE_MB}MB"})
    client.command({"replSetResizeOplog": 1, "size": OPLOG_MB})


def fill(admin: Databases, documents: int) -> None:
    """Insert so many things."""
    for first in range(0, documents, INSERT_AT_ONCE):
        numbers = range(first, min(documents, first + INSERT_AT_ONCE))
        admin.app[COLLECTION].insert_many((_thing(number) for number in numbers), ordered=False)


def _thing(number: int) -> dict[str, Any]:
    return {"number": number, "label": "change-000", "price": PRICE, "total": 0, "filling": FILLING, "tags": ["a", "b"]}
