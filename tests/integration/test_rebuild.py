"""A copy takes the place of a collection: nothing that was acknowledged is lost, nobody who was erased comes back."""

import importlib
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from bson import Int64, ObjectId
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from migrated import leave_the_lease_behind, write_scripts
from pymongo.errors import PyMongoError, WriteError
from shaped import NAME, shaped
from waiting import wait_until

from compliance.erasure import frozen, verify
from compliance.errors import (
    GateClosed,
    LeaseLost,
    LockHeld,
    MigrationError,
    RejectedError,
    RevisionMissing,
    StepFailed,
    StoreUnavailable,
)
from compliance.mongo import Document, open_client
from migrations import command
from migrations.ledger import lease
from migrations.ops.rebuild import freeze, going, put_back
from migrations.ops.rebuild.changes import HistoryLost
from migrations.ops.rebuild.copy import Copier
from migrations.ops.rebuild.exchange import Exchange
from migrations.ops.rebuild.following import Following
from migrations.ops.rebuild.going import Rebuilding
from migrations.refused import Rescue, find_abandoned
from migrations.runner import Runner
from migrations.wish import Wish

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
recovering = importlib.import_module("migrations.ops.rebuild.recover")  # its package names the function alike
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


def test_a_collection_is_rebuilt_with_its_indexes_and_its_validator(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    app = empty.admin.app
    app["things"].create_index("n", name="ux_n", unique=True)
    app["things"].create_index("m", name="ix_m", sparse=True)
    app.command("collMod", "things", validator={"n": {"$gte": 0}}, validationLevel="moderate")
    before = empty.admin.app["things"].index_information()
    options = app["things"].options()

    deployment.runner().up()

    assert things(empty) == {n: {"_id": n, "n": n, "m": 1, "total": n + 1} for n in range(11)}
    assert (app["things"].index_information(), app["things"].options()) == (before, options)
    assert (names(empty), control(empty)["is_over"], "frozen" in control(empty)) == ({"things"}, True, False)
    (entry,) = empty.entries(**{"details.op": "rebuild", "details.is_done": True})
    assert 0 < entry["details"]["frozen_ms"] < 5000
    assert (entry["details"]["deleted_late"], entry["details"]["written_late"]) == (0, 0)


def test_a_function_makes_documents_anew_or_leaves_them_out(empty: Deployment, tmp_path: Path) -> None:
    documents = [{"_id": 1, "n": Int64(2)}, {"_id": "a", "n": 1.5}, {"_id": ObjectId("0" * 24), "n": 1, "gone": True}]
    schema = '{"bsonType": "object", "required": ["n"]}'
    options = '{"collation": {"locale": "de"}}'
    call = f'ctx.rebuild("things", function=twice, schema={schema}, options={options})'
    deployment = arranged(empty, tmp_path, call, documents)

    deployment.runner().up()

    assert things(empty) == {1: {"_id": 1, "n": 4}, "a": {"_id": "a", "n": 3.0}}
    found = empty.admin.app["things"].options()
    assert (found["collation"]["locale"], found["validationLevel"]) == ("de", "strict")
    with pytest.raises(WriteError):
        empty.admin.app["things"].insert_one({"_id": 2})
    declared = empty.admin.compliance["declared_schema"].find_one({"collection": "things"})
    assert declared is not None


@pytest.mark.parametrize(
    ("call", "document", "error", "why"),
    [
        ("function=twice", {"_id": 1, "bad": True}, StepFailed, "it is bad"),
        ("function=other_id", {"_id": 1}, StepFailed, "keep its _id"),
        ("function=counted", {"_id": 1}, StepFailed, "not made the same twice"),
        ('pipeline=[{"$set": {"_id": 7}}]', {"_id": 1}, StepFailed, "the _id of documents"),
        ('pipeline=[{"$group": {"_id": 1}}]', {"_id": 1}, MigrationError, r"more than one document: \$group"),
        ("freeze_seconds=61", {"_id": 1}, MigrationError, "from 0.1 to 60"),
    ],
)
def test_what_cannot_be_made_anew_is_said_and_nothing_is_exchanged(
    empty: Deployment, tmp_path: Path, call: str, document: Document, error: type[Exception], why: str
) -> None:
    deployment = arranged(empty, tmp_path, f'ctx.rebuild("things", {call})', [document])

    with pytest.raises(error, match=why):
        deployment.runner().up()

    assert things(empty) == {1: document}
    empty.admin.app["things"].insert_one({"_id": 2})  # writes go on


def test_duplicates_that_are_made_anew_are_found_while_writes_are_refused(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, 'ctx.rebuild("things", pipeline=[{"$set": {"n": 1}}])', some(3))
    empty.admin.app["things"].create_index("n", name="ux_n", unique=True)

    with pytest.raises(StepFailed, match="duplicates in the index ux_n"):
        deployment.runner().up()

    empty.admin.app["things"].insert_one({"_id": 50, "n": 50})
    assert "frozen" not in control(empty)
    deployment.runner().down("000")
    assert names(empty) == {"things"}


def test_what_cannot_be_rebuilt_is_refused_with_the_reason(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, MAKE, [])
    app = empty.admin.app
    with pytest.raises(StepFailed, match="does not exist"):
        deployment.runner().up()
    app.create_collection("things", capped=True, size=4096)
    with pytest.raises(StepFailed, match="it is capped"):
        deployment.runner().up()
    app.drop_collection("things")
    app.create_collection("things", timeseries={"timeField": "at"})
    with pytest.raises(StepFailed, match="time series"):
        deployment.runner().up()
    app.drop_collection("things")
    app.create_collection("things")
    app.create_collection("things_seen", viewOn="things", pipeline=[])
    with pytest.raises(StepFailed, match="the view things_seen shows it"):
        deployment.runner().up()
    app.drop_collection("things_seen")
    app.create_collection("things_shadow")

    with pytest.raises(StepFailed, match="things_shadow is there, and not ours"):
        deployment.runner().up()

    assert names(empty) == {"things", "things_shadow"}


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


def test_no_acknowledged_write_is_lost_beside_writers(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(100))

    with writing(empty) as wanted:
        deployment.runner().up()
        threading.Event().wait(0.2)

    assert_nothing_lost(empty, wanted)
    rebuilt = [one for one in things(empty).values() if one["_id"] < 1000]
    assert all(one["total"] == one["n"] + 1 and "old" not in one for one in rebuilt)


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("at", sampled(range(3, 15), each=4))
def test_who_dies_is_followed_by_one_who_lets_writes_in_and_goes_on(
    empty: Deployment,
    tmp_path: Path,
    at: int,
    committed: bool,  # noqa: FBT001
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    with writing(empty, writers=1) as wanted:
        runner: Runner = deployment.runner(most_docs=4)
        with suppress(Died):
            replace(runner, databases=mortal(runner.databases, at=at, committed=committed)).up()
        leave_the_lease_behind(empty.admin)
        wait_until(lambda: is_done(deployment), timeout=30, what="a successor finishes")

    assert_nothing_lost(empty, wanted)
    assert names(empty) == {"things"}


def die_while_writes_are_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Exchange, "_rename", die)
        with pytest.raises(Died):
            deployment.runner().up()


def test_who_dies_while_writes_are_refused_is_followed_by_whoever_migrates_next(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))

    die_while_writes_are_refused(deployment, monkeypatch)
    with pytest.raises(WriteError):
        empty.admin.app["things"].insert_one({"_id": 50})
    (exchanging,) = names(empty) - {"things"}
    leave_the_lease_behind(empty.admin)

    def is_down() -> bool:
        with suppress(LockHeld):
            deployment.runner().down("000")
            return True
        return False

    wait_until(is_down, timeout=30, what="the next one")

    assert exchanging.startswith("things_shadow_")
    empty.admin.app["things"].insert_one({"_id": 50})
    assert names(empty) == {"things"}


def test_writes_are_let_in_again_though_the_script_is_gone(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rollback of the code: what is wrong with scripts is said afterwards."""
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))

    die_while_writes_are_refused(deployment, monkeypatch)
    leave_the_lease_behind(empty.admin)
    (tmp_path / "scripts" / "v001_data_it.py").unlink()

    def is_refused() -> bool:
        with suppress(LockHeld):
            with pytest.raises(RevisionMissing):
                deployment.runner().up()
            return True
        return False

    wait_until(is_refused, timeout=30, what="the next one")
    empty.admin.app["things"].insert_one({"_id": 50})


def test_too_small_a_budget_lets_writes_in_again_and_the_next_run_goes_on(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Following, "left", lambda _: timedelta())
        with pytest.raises(GateClosed, match="3 times; writes go on, and things_shadow stays"):
            deployment.runner(report=lines.append).up()
    empty.admin.app["things"].insert_one({"_id": 50, "n": 1, "m": 1})
    assert names(empty) == {"things", "things_shadow"}

    deployment.runner(report=lines.append).up()

    assert things(empty)[50] == {"_id": 50, "n": 1, "m": 1, "total": 2}
    assert sum("copy about" in line for line in lines) == 2
    assert names(empty) == {"things"}


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


@pytest.mark.parametrize("method", PLACES)
def test_who_is_erased_while_it_is_rebuilt_is_in_neither(
    empty: Deployment, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = 'ctx.rebuild("users", pipeline=[{"$set": {"seen": True}}])'
    deployment = arranged(empty, tmp_path, up, [])
    ann, bob = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1"), ObjectId("65e5f0a1b2c3d4e5f6a7b8c2")
    people = [{"_id": ann, "email": "ann@example.org"}, {"_id": bob, "email": "bob@example.org"}]
    empty.admin.app["users"].insert_many(people)

    def erase() -> None:
        deployment.run("erasure.request", {"subject_id": str(ann)})

    with beside(method, erase, monkeypatch):
        deployment.runner().up()

    def is_erased() -> bool:  # in the moment of the exchange it is tried again
        return deployment.carry_out("erasure.request", {"subject_id": str(ann)}).state == "done"

    wait_until(is_erased, timeout=60, what="the erasure")
    assert [one["_id"] for one in empty.admin.app["users"].find()] == [bob]
    assert "users_shadow" not in empty.admin.app.list_collection_names()
    assert deployment.entries(action="erasure.residual_found") == []


def test_what_is_removed_from_the_copy_is_asked_of_the_collection(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    with beside("go", lambda: empty.admin.app["things_shadow"].delete_many({"_id": {"$lt": 5}}), monkeypatch):
        deployment.runner().up()

    assert sorted(things(empty)) == list(range(11))


def test_what_is_deleted_at_the_last_moment_is_deleted_behind_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    with beside("_rename", lambda: empty.admin.app["things"].delete_one({"_id": 3}), monkeypatch):
        deployment.runner().up()

    assert 3 not in things(empty)
    (entry,) = empty.entries(**{"details.op": "rebuild", "details.is_done": True})
    assert entry["details"]["deleted_late"] == 1


def test_what_is_written_past_the_validator_at_the_last_moment_is_told(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []

    def bypass() -> None:
        empty.admin.app["things"].update_one({"_id": 3}, {"$set": {"m": 9}}, bypass_document_validation=True)

    with beside("_rename", bypass, monkeypatch):
        deployment.runner(report=lines.append).up()

    assert things(empty)[3]["m"] == 1
    assert any("1 documents of things were written past the validator" in line for line in lines)


def overtake(empty: Deployment, deed: Callable[[], object]) -> None:
    """Take the lease from whoever has it and cannot renew it, and do something in its place."""
    lease = {"state": "queued", "lease": None, "run_at": None}
    empty.admin.compliance["migration_lease"].update_one({"_id": "migrations"}, {"$set": lease})
    deed()


def sleep_before_writes_are_refused(
    deployment: Deployment, meanwhile: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a runner lose its lease between its last look at it and the command that refuses writes."""
    slept: list[bool] = []

    def send(*arguments: Any) -> Any:
        if not slept:
            slept.append(True)
            overtake(deployment, meanwhile)
        return command.send(*arguments)

    monkeypatch.setattr(freeze, "send", send)
    with pytest.raises(LeaseLost):
        deployment.runner().up()
    assert slept


def is_let_in(empty: Deployment, id_: int = 50) -> bool:
    with suppress(WriteError):
        empty.admin.app["things"].insert_one({"_id": id_, "n": id_, "m": 1})
        return True
    return False


RULES = {"validator": {"n": {"$gte": 0}}, "validationLevel": "moderate", "validationAction": "error"}


def test_who_slept_past_its_lease_before_it_refused_writes_lets_them_in_again(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    empty.admin.app.command("collMod", "things", **RULES)
    successor = deployment.runner()

    sleep_before_writes_are_refused(deployment, successor.let_writes_in, monkeypatch)

    assert empty.admin.app["things"].options() == RULES
    assert is_let_in(empty)
    (entry,) = empty.entries(**{"details.op": "thaw", "details.recorded": False})
    assert entry["details"]["collection"] == "things"


def test_who_slept_past_its_lease_refuses_nothing_of_the_copy_that_took_the_place(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    sleep_before_writes_are_refused(deployment, deployment.runner().up, monkeypatch)

    assert things(empty)[3] == {"_id": 3, "n": 3, "m": 1, "total": 4}
    assert is_let_in(empty)
    assert empty.entries(**{"details.op": "thaw", "details.recorded": False}) == []


def leave_writes_refused_without_a_record(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *, meanwhile: Callable[[], object]
) -> None:
    """Let a runner sleep past its lease, refuse writes, and die before it looks."""

    def die(*_: object, **__: object) -> None:
        raise LeaseLost("it died")

    with monkeypatch.context() as patched:
        patched.setattr(freeze, "put_back", die)
        patched.setattr(going, "put_back", die)
        sleep_before_writes_are_refused(deployment, meanwhile, patched)
    assert not is_let_in(deployment)
    assert "frozen" not in control(deployment)


def test_writes_that_are_refused_without_a_record_are_let_in_by_whoever_migrates_next(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    empty.admin.app.command("collMod", "things", **RULES)

    leave_writes_refused_without_a_record(deployment, monkeypatch, meanwhile=deployment.runner().let_writes_in)
    assert frozen.is_frozen(deployment.services().databases)
    deployment.runner().let_writes_in()

    assert empty.admin.app["things"].options() == RULES
    assert is_let_in(empty)


def test_who_is_asked_to_put_back_what_another_lease_refuses_leaves_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    die_while_writes_are_refused(deployment, monkeypatch)
    (refused,) = frozen.find_frozen(deployment.admin)
    databases = deployment.runner().databases

    assert not put_back(databases, "things", fence=refused.fence, actor="test")  # it is recorded
    empty.admin.compliance["migration_control"].update_one({"_id": "rebuild:things"}, {"$unset": {"frozen": ""}})
    assert not put_back(databases, "things", fence=refused.fence - 1, actor="test")
    assert not is_let_in(empty)
    assert put_back(databases, "things", fence=refused.fence, actor="test")
    assert is_let_in(empty)


def test_nothing_is_exchanged_where_somebody_let_writes_in(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who recovers, sleeps past its lease, and sends its command late."""
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []

    def meddle() -> None:
        empty.admin.app.command("collMod", "things", validator={})
        empty.admin.app["things"].update_one({"_id": 3}, {"$set": {"m": 9}})

    with beside("_name_by_fence", meddle, monkeypatch):
        deployment.runner(report=lines.append).up()

    assert things(empty)[3] == {"_id": 3, "n": 3, "m": 9, "total": 12}
    assert sum("writes are let in again" in line for line in lines) >= 1


def test_an_exchange_of_which_the_oplog_tells_nothing_any_more_is_accepted_by_a_person(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    def die(*_: object, **__: object) -> None:
        raise Died

    def lost(*_: object, **__: object) -> None:
        raise HistoryLost("it does not reach back")

    with monkeypatch.context() as patched:
        patched.setattr(Rebuilding, "_settle", die)
        with pytest.raises(Died):
            deployment.runner().up()
    with pytest.raises(RejectedError, match="no exchange of others waits"):
        deployment.runner().accept_exchange("others", reason="nobody deletes there")
    with pytest.raises(StoreUnavailable, match="a migration exchanges things"):
        frozen.require_rest(deployment.services().databases)
    monkeypatch.setattr(recovering, "follow", lost)

    with pytest.raises(StepFailed, match="migrate repair --exchange things --reason TEXT"):
        deployment.runner().up()
    assert deployment.runner().accept_exchange("things", reason="nobody deletes there")
    deployment.runner().up()

    assert control(empty)["is_over"]
    assert "frozen" not in control(empty)
    (entry,) = empty.entries(**{"details.op": "accept_exchange"})
    assert (entry["details"]["collection"], entry["details"]["reason"]) == ("things", "nobody deletes there")
    with pytest.raises(RejectedError):
        deployment.runner().accept_exchange("things", reason="nobody deletes there")


def test_an_exchange_that_the_oplog_tells_of_is_settled_instead_of_accepted(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patched, beside("_rename", lambda: delete_one(empty, 3), monkeypatch):
        patched.setattr(Rebuilding, "_settle", die)
        with pytest.raises(Died):
            deployment.runner().up()

    assert not deployment.runner().accept_exchange("things", reason="nobody deletes there")
    assert 3 not in things(empty)


def delete_one(empty: Deployment, id_: int) -> None:
    empty.admin.app["things"].delete_one({"_id": id_})


def test_a_look_through_collections_counts_for_nothing_where_one_was_exchanged_meanwhile(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    databases = deployment.services().databases
    before = frozen.require_rest(databases)
    frozen.require_same(databases, before)

    with monkeypatch.context() as patched:
        patched.setattr(Following, "left", lambda _: timedelta())
        with pytest.raises(GateClosed):
            deployment.runner().up()
    with pytest.raises(StoreUnavailable, match="exchanged while it was looked through"):
        frozen.require_same(databases, before)  # it was begun, and the copy had another name
    before = frozen.require_rest(databases)
    deployment.runner().up()

    with pytest.raises(StoreUnavailable, match="exchanged while it was looked through"):
        frozen.require_same(databases, before)
    frozen.require_same(databases, frozen.require_rest(databases))


def test_an_erasure_looks_again_where_a_copy_takes_the_place_while_it_looks(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(3))
    ann = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1")
    empty.admin.app["users"].insert_one({"_id": ann, "email": "ann@example.org"})
    looked, sweep = [], verify.sweep

    def swept(*arguments: Any, **named: Any) -> dict[str, int]:
        if not looked:
            deployment.runner().up()
        looked.append(True)
        return sweep(*arguments, **named)

    monkeypatch.setattr(verify, "sweep", swept)

    first = deployment.carry_out("erasure.request", {"subject_id": str(ann)})
    assert first.state == "queued"
    wait_until(
        lambda: deployment.carry_out("erasure.request", {"subject_id": str(ann)}).state == "done",
        timeout=60,
        what="the erasure",
    )
    assert len(looked) > 2


def test_a_collection_of_an_open_online_change_is_not_rebuilt(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path, people=3)
    deployment.runner().up()
    write_scripts(
        tmp_path / "scripts",
        {
            "v002_data_it.py": SCRIPT.replace("UP", 'ctx.rebuild("people", pipeline=[{"$unset": "other"}])').replace(
                "COUNTER = ", "DEPENDS_ON = ()\n        COUNTER = "
            )
        },
    )

    with pytest.raises(StepFailed, match=f"while its online change {NAME} is open"):
        deployment.runner().up(wish=Wish(only="v002_data_it"))

    assert "people_shadow" not in empty.admin.app.list_collection_names()


def test_an_online_change_of_a_collection_that_is_being_rebuilt_does_not_begin(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path, people=3)
    deployment.runner().up("000")
    record = {"_id": "rebuild:people", "collection": "people", "is_over": False, "source": None, "shadow": None}
    empty.admin.compliance["migration_control"].insert_one(record)

    with pytest.raises(StepFailed, match="people is being rebuilt: finish that"):
        deployment.runner().up()
    empty.admin.compliance["migration_control"].update_one({"_id": "rebuild:people"}, {"$set": {"is_over": True}})
    deployment.runner().up()

    assert empty.admin.app["people"].find_one({"first": {"$exists": False}}) is None


def rescue(deployment: Deployment, told: list[str]) -> Rescue:
    runner = deployment.runner()
    return Rescue(
        databases=runner.databases,
        clock=runner.clock,
        actor="reconciler",
        length=timedelta(seconds=5),
        should_stop=lambda: False,
        alarm=told.extend,
        told=lambda _: None,
        grace=timedelta(),
    )


def test_writes_that_stay_refused_are_let_in_by_the_process_that_always_runs_and_people_are_told_once(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    told: list[str] = []
    looking = rescue(deployment, told)
    looking.look()
    die_while_writes_are_refused(deployment, monkeypatch)
    leave_the_lease_behind(empty.admin)

    late = replace(looking, grace=timedelta(hours=1))
    late.look()
    assert told == []
    assert not is_let_in(empty)

    def is_rescued() -> bool:
        looking.look()
        return is_let_in(empty)

    wait_until(is_rescued, timeout=30, what="writes are let in")
    looking.look()

    assert told == ["things"]
    assert find_abandoned(deployment.services().databases) == ()
    (entry,) = empty.entries(**{"details.op": "thaw"})
    assert (entry["entity_id"], entry["performed_by"]) == ("recovery", "reconciler")
    deployment.runner().up()
    assert things(empty)[3]["total"] == 4


def test_writes_that_a_sleeper_refuses_are_let_in_while_somebody_else_migrates_for_long(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    told: list[str] = []
    leave_writes_refused_without_a_record(deployment, monkeypatch, meanwhile=deployment.runner().let_writes_in)
    runner = deployment.runner()
    other = lease(runner.databases, owner="other:1", clock=runner.clock, length=timedelta(seconds=20))

    with other:
        assert find_abandoned(deployment.services().databases) == ("things",)
        rescue(deployment, told).look()
        assert is_let_in(empty)

    assert told == ["things"]


def test_writes_that_a_living_runner_refuses_are_left_to_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    told: list[str] = []
    found: list[object] = []

    def look() -> None:
        rescue(deployment, told).look()
        found.extend([find_abandoned(deployment.admin), is_let_in(empty)])

    with beside("_rename", look, monkeypatch):
        deployment.runner().up()

    assert (told, found) == ([], [(), False])
