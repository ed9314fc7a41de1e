"""A collection that a script rebuilds, and writers beside it."""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from migrated import write_scripts
from pymongo.errors import PyMongoError
from waiting import wait_until

from compliance.errors import (
    LockHeld,
)
from compliance.mongo import Document, open_client
from migrations.ops.rebuild.copy import Copier
from migrations.ops.rebuild.exchange import Exchange
from migrations.ops.rebuild.going import Rebuilding

MAKE = 'ctx.rebuild("things", pipeline=[{"$set": {"total": {"$add": ["$n", "$m"]}}}, {"$unset": "old"}])'

PLACES: dict[str, Any] = {
    "_copy": Rebuilding,
    "made": Copier,
    "_try": Rebuilding,
    "go": Exchange,
    "_make_unique": Exchange,
    "_rename": Exchange,
    "_name_by_fence": Exchange,
}

SCRIPT = '''
        """Rebuild."""

        import itertools


        COUNTER = itertools.count()


        def twice(document):
            if document.get("bad"):
                raise ValueError("it is bad")
            return None if document.get("gone") else {**document, "n": document["n"] * 2}


        def other_id(document):
            return {**document, "_id": -1}


        def counted(document):
            return {**document, "count": next(COUNTER)}


        def up(ctx):
            """Rebuild."""
            UP


        def down(ctx):
            """Let go of a copy that is left."""
            ctx.drop_rebuilt("things")
'''


def arranged(empty: Deployment, folder: Path, up: str, documents: list[Document], **settings: Any) -> Deployment:
    scripts = write_scripts(folder / "scripts", {"v001_data_it.py": SCRIPT.replace("UP", up)})
    deployment = empty.with_settings(migrations=scripts, batch_docs=4, **settings)
    deployment.runner().up("000")
    if documents:
        empty.admin.app["things"].insert_many(documents)
    return deployment


def some(number: int = 11) -> list[Document]:
    return [{"_id": n, "n": n, "m": 1, "old": True} for n in range(number)]


def things(empty: Deployment) -> dict[Any, Document]:
    return {one["_id"]: one for one in empty.admin.app["things"].find()}


def names(empty: Deployment) -> set[str]:
    return {name for name in empty.admin.app.list_collection_names() if name.startswith("things")}


def control(empty: Deployment) -> Document:
    found = empty.admin.compliance["migration_control"].find_one({"_id": "rebuild:things"})
    assert found is not None
    return found


def is_done(deployment: Deployment) -> bool:
    with suppress(LockHeld):
        deployment.runner(most_docs=4).up()
        return True
    return False


def write(uri: str, name: str, number: int, writers: int, told: Connection) -> None:
    """Insert, update and delete until told to end; then say what of it was acknowledged."""
    chosen = random.Random(number)
    wanted: dict[int, int | None] = {}
    refused, id_ = 0, number
    with open_client(uri, app_name="writer") as client:
        documents = client[name]["things"]
        while not told.poll(0.001):
            old = [one for one, value in wanted.items() if value is not None]
            what = chosen.randrange(3) if old else 0
            try:
                if what == 0:
                    documents.insert_one({"_id": id_, "n": id_, "m": 0, "old": True})
                    wanted[id_] = 0
                    id_ += writers
                elif what == 1:
                    one = chosen.choice(old)
                    documents.update_one({"_id": one}, {"$inc": {"m": 1}})
                    wanted[one] = (wanted[one] or 0) + 1
                else:
                    one = chosen.choice(old)
                    documents.delete_one({"_id": one})
                    wanted[one] = None
            except PyMongoError as error:
                assert getattr(error, "code", None) == 121, error  # noqa: PT017 - counted
                refused += 1
    told.send((wanted, refused))


@contextmanager
def writing(empty: Deployment, writers: int = 3) -> Iterator[dict[int, int | None]]:
    """Let processes write for the block; afterwards the dictionary says what they were acknowledged."""
    uri = empty.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    context = multiprocessing.get_context("spawn")
    lines = [context.Pipe() for _ in range(writers)]
    processes = [
        context.Process(target=write, args=(uri, empty.name, 1000 + number, writers, there))
        for number, (_, there) in enumerate(lines)
    ]
    for process in processes:
        process.start()
    wanted: dict[int, int | None] = {}
    try:
        wait_until(lambda: empty.admin.app["things"].count_documents({"_id": {"$gte": 1000}}) > 0, timeout=30, what="w")
        yield wanted
    finally:
        for here, _ in lines:
            here.send("end")
        for here, _ in lines:
            if here.poll(30):
                wanted |= here.recv()[0]
        for process in processes:
            process.join(timeout=30)


def assert_nothing_lost(empty: Deployment, wanted: dict[int, int | None]) -> None:
    found = {id_: one for id_, one in things(empty).items() if id_ >= 1000}

    assert {id_: one["m"] for id_, one in found.items()} == {id_: m for id_, m in wanted.items() if m is not None}
    assert len(wanted) > 10


@contextmanager
def beside(method: str, deed: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do something once, right before *method* of a rebuilding."""
    owner = PLACES[method]
    original, done = getattr(owner, method), []

    def meddled(self: Any, *arguments: Any, **named: Any) -> Any:
        if not done:
            done.append(deed())
        return original(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, meddled)
        yield
    assert done
