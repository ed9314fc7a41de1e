"""The primary of three nodes steps down during a migration: it finishes by itself, every document exactly once."""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment, Stack, provision_database
from disturbed import BEFORE, WITHIN, Disturbance, DisturbedDatabases
from every import sampled
from migrated import names, write_scripts
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError
from shaped import NAME, PEOPLE, Applications, agree, follower, shaped, wait_until_in_step
from waiting import wait_until

from compliance.erasure.frozen import is_frozen
from migrations.online.follow import following
from migrations.ops.rebuild.exchange import Exchange
from worker.embedded import open_stack

pytestmark = pytest.mark.timeout(300)

DOCUMENTS = 24
COMMITS = [6, *range(1, 6), *range(7, 19)]  # the third batch, then all others
LINES = ["create index", "verify things", "gate there", "change the validator"]
SCRIPTS = {
    "v001_data_count.py": '''
        """Count."""


        def up(ctx):
            """Each once."""
            ctx.walk("things", where={}, update={"$inc": {"n": 1}})


        def down(ctx):
            """Nothing."""
    ''',
    "v002_post_look.py": '''
        """What no batch does."""


        def up(ctx):
            """Index, look, wait, and change the validator."""
            ctx.create_index("things", "ix_n", [("n", 1)])
            ctx.verify("things", none={"n": {"$ne": 1}})
            ctx.gate("there", until=are_there)
            ctx.set_schema("things", schema={"bsonType": "object"})


        def are_there(database):
            return database["things"].find_one({"n": 1}) is not None


        def down(ctx):
            """Nothing."""
    ''',
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A replica set of three."""
    with open_stack(tmp_path_factory.mktemp("three"), nodes=3) as running:
        yield running


@pytest.fixture
def bare(stack: Stack) -> Iterator[Deployment]:
    with ExitStack() as cleanup:
        yield provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)


@pytest.fixture
def three(bare: Deployment, tmp_path: Path) -> Deployment:
    bare.admin.app["things"].insert_many([{"_id": n, "n": 0, "other": 0} for n in range(DOCUMENTS)])
    return bare.with_settings(migrations=write_scripts(tmp_path / "scripts", SCRIPTS), batch_docs=4)


@pytest.fixture
def dual(bare: Deployment, tmp_path: Path) -> Deployment:
    """An online change that is open."""
    deployment = shaped(bare, tmp_path, people=12, lease=timedelta(seconds=3))
    deployment.runner().up()
    return deployment


@contextmanager
def writers(deployment: Deployment) -> Iterator[Counter[int]]:
    """Count up another field of the documents for the block; yields what was acknowledged by the majority."""
    acknowledged: Counter[int] = Counter()
    ended = threading.Event()
    app = deployment.admin.app["things"]

    def write() -> None:
        chosen = random.Random(1)
        while not ended.wait(0.01):
            id_ = chosen.randrange(DOCUMENTS)
            with suppress(PyMongoError):
                app.update_one({"_id": id_}, {"$inc": {"other": 1}})
                acknowledged[id_] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        thread.join()


def has_primary(deployment: Deployment) -> bool:
    with suppress(AutoReconnect, OperationFailure):
        return bool(deployment.admin.client.admin.command("hello")["isWritablePrimary"])
    return False


def assert_done_once(deployment: Deployment, acknowledged: Counter[int]) -> None:
    wait_until(lambda: has_primary(deployment), timeout=60, what="a primary is elected")
    found = list(deployment.admin.app["things"].find())

    assert [one["n"] for one in found] == [1] * DOCUMENTS
    assert all(one["other"] >= acknowledged[one["_id"]] for one in found)
    assert "ix_n" in deployment.admin.app["things"].index_information()


@pytest.mark.parametrize("moment", [BEFORE, WITHIN])
@pytest.mark.parametrize("at", sampled(COMMITS, each=18))
def test_a_migration_whose_primary_steps_down_at_a_commit_finishes_by_itself(
    three: Deployment, at: int, moment: str
) -> None:
    runner, disturbance = three.runner(most_docs=4), Disturbance(three)
    databases = DisturbedDatabases(runner.databases, disturbance, at=at, moment=moment)

    with writers(three) as acknowledged:
        done = replace(runner, databases=databases).up()

    assert disturbance.is_over
    assert names(done)[-2:] == ["v001_data_count", "v002_post_look"]
    assert_done_once(three, acknowledged)


@pytest.mark.parametrize(
    "line", sampled(["create index", "verify things", "gate there", "change the validator"], each=4)
)
def test_a_step_without_batches_whose_primary_steps_down_finishes_by_itself(three: Deployment, line: str) -> None:
    disturbance, lines = Disturbance(three), list[str]()

    def report(told: str) -> None:
        lines.append(told)
        if line in told and not disturbance.is_over:
            disturbance.step_down()

    with writers(three) as acknowledged:
        done = three.runner(most_docs=4, report=report).up()

    assert disturbance.is_over, lines
    assert names(done)[-2:] == ["v001_data_count", "v002_post_look"]
    assert_done_once(three, acknowledged)


@pytest.mark.parametrize("moment", [BEFORE, WITHIN])
@pytest.mark.parametrize("at", sampled(range(2, 10), each=8))
def test_shapes_are_kept_in_step_over_a_primary_that_steps_down(dual: Deployment, at: int, moment: str) -> None:
    keeping, disturbance = follower(dual), Disturbance(dual)
    keeping.databases = DisturbedDatabases(keeping.databases, disturbance, at=at, moment=moment)
    applications = Applications(dual, list(range(12)), seed=at)

    with following(keeping):
        with applications.writing("old", "new", "old", "new"):
            wait_until(lambda: disturbance.is_over, timeout=60, what="the primary steps down")
            written = min(applications.written.values())
            wait_until(lambda: min(applications.written.values()) > written + 20, timeout=60, what="both write on")
        wait_until(lambda: has_primary(dual), timeout=60, what="a primary is elected")
        wait_until_in_step(dual)

    assert len(applications.last) == 12
    assert applications.lost("name", "first", "last") == []
    assert all(agree(one) for one in dual.admin.app[PEOPLE].find())


@pytest.mark.parametrize("moment", [BEFORE, WITHIN])
@pytest.mark.parametrize("at", sampled(range(1, 7), each=6))
@pytest.mark.parametrize("way", ["complete", "rollback"])
def test_an_online_command_whose_primary_steps_down_finishes_by_itself(
    dual: Deployment, way: str, at: int, moment: str
) -> None:
    lines: list[str] = []
    runner, disturbance = dual.runner(report=lines.append), Disturbance(dual)
    runner = replace(runner, databases=DisturbedDatabases(runner.databases, disturbance, at=at, moment=moment))
    applications = Applications(dual, list(range(12)), seed=at)

    with applications.writing("new" if way == "complete" else "old", pause=0.01):
        wait_until(lambda: sum(applications.written.values()) > 20, timeout=60, what="it is written")
        runner.complete(NAME) if way == "complete" else runner.rollback(NAME)
    wait_until(lambda: has_primary(dual), timeout=60, what="a primary is elected")

    assert disturbance.is_over, lines
    assert applications.lost(*(("first", "last") if way == "complete" else ("name",))) == []
    gone = {"name"} if way == "complete" else {"first", "last"}
    assert all(gone.isdisjoint(one) for one in dual.admin.app[PEOPLE].find())
    assert dual.admin.compliance["migration_writes"].count_documents({}) == 0


def test_what_a_person_accepts_is_recorded_once_where_the_primary_steps_down(three: Deployment, tmp_path: Path) -> None:
    three.runner(most_docs=4).up()
    text = SCRIPTS["v001_data_count.py"].replace("Nothing", "Nothing at all").replace("up(ctx):", "up(ctx, _=1):")
    write_scripts(tmp_path / "scripts", {"v001_data_count.py": text})
    runner, disturbance = three.runner(), Disturbance(three)
    databases = DisturbedDatabases(runner.databases, disturbance, at=1, moment=WITHIN)

    accepted = replace(runner, databases=databases).accept("v001_data_count", reason="only words were changed")
    wait_until(lambda: has_primary(three), timeout=60, what="a primary is elected")

    assert (accepted, disturbance.is_over) == ("edited", True)
    assert len(three.entries(action="migration.repaired")) == 1


REBUILD = {
    "v001_data_rebuild.py": '''
        """Rebuild."""


        def up(ctx):
            """Rebuild."""
            ctx.rebuild("things", pipeline=[{"$set": {"made": True}}], freeze_seconds=60)


        def down(ctx):
            """Let go of a copy that is left."""
            ctx.drop_rebuilt("things")
    ''',
}


@pytest.mark.parametrize("method", sampled(["_rename", "_name_by_fence", "go", "_make_unique"], each=4))
def test_a_rebuilding_whose_primary_steps_down_finishes_by_itself(
    three: Deployment, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = three.with_settings(migrations=write_scripts(tmp_path / "rebuild", REBUILD))
    disturbance, original = Disturbance(three), getattr(Exchange, method)

    def disturbed(self: Exchange, *arguments: object) -> object:
        if not disturbance.is_over:
            disturbance.step_down()
        return original(self, *arguments)

    monkeypatch.setattr(Exchange, method, disturbed)
    with writers(three) as acknowledged:
        done = deployment.runner(most_docs=4).up()

    assert disturbance.is_over
    assert names(done)[-1:] == ["v001_data_rebuild"]
    wait_until(lambda: has_primary(three), timeout=60, what="a primary is elected")
    found = list(three.admin.app["things"].find())
    assert len(found) == DOCUMENTS
    assert all(one["made"] and one["other"] >= acknowledged[one["_id"]] for one in found)
    assert not is_frozen(three.admin)
