"""Documents that are changed in batches: each exactly once, and what becomes of the ones that cannot be changed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from deployment import Deployment
from migrated import write_scripts
from parameters import impatient

import compliance.mongo
from compliance.errors import ExitCode, StepFailed
from compliance.mongo import Document
from migrations.migrate import main
from migrations.ops import batches, walk
from migrations.ops.walk import estimate
from migrations.runner import Runner

EVERY_TYPE: tuple[Any, ...] = (
    MinKey(), None, 1, 2.5, Int64(2**40), Decimal128("3.3"), "a", "", {"x": 1}, {}, Binary(b"z"), Binary(b"0" * 16, 4),
    ObjectId("65e5f0a1b2c3d4e5f6a7b8c9"), True, False, datetime(2026, 1, 1, tzinfo=UTC), Timestamp(1, 1), MaxKey(),
)  # fmt: skip
COUNT = {"$inc": {"n": 1}}


def arranged(
    empty: Deployment,
    folder: Path,
    call: str,
    documents: Sequence[Document],
    *,
    batch_docs: int = 4,
    **changes: Any,
) -> Runner:
    """A runner of one script that makes *call* on ``things``, which hold *documents*."""
    source = f'''
        """One step."""


        def up(ctx):
            """It."""
            {call}


        def down(ctx):
            """Nothing."""
    '''
    empty.admin.app["things"].insert_many(documents)
    scripts = write_scripts(folder / "scripts", {"v001_data_it.py": source})
    return empty.with_settings(migrations=scripts, batch_docs=batch_docs).runner(**changes)


def things(empty: Deployment) -> list[Document]:
    return list(empty.admin.app["things"].find({}, sort={"_id": 1}))


HIDDEN = dict.fromkeys(("_id", "at", "digest", "passage"), 0)


def aside(empty: Deployment) -> list[Document]:
    return list(empty.admin.compliance["set_aside"].find({}, HIDDEN, sort={"document_id": 1}))


@pytest.mark.parametrize("batch_docs", [1, 2, 5, 100])
def test_a_walk_changes_each_document_once_whatever_the_type_of_its_id(
    empty: Deployment, tmp_path: Path, batch_docs: int
) -> None:
    documents = [{"_id": id_, "n": 0} for id_ in EVERY_TYPE]
    call = f'ctx.walk("things", where={{}}, update={COUNT!r})'

    arranged(empty, tmp_path, call, documents, batch_docs=batch_docs, most_docs=batch_docs).up()

    assert [document["n"] for document in things(empty)] == [1] * len(EVERY_TYPE)
    (entry,) = empty.entries(action="migration.step", **{"details.is_done": True, "details.op": "walk"})
    assert (entry["details"]["documents"], entry["details"]["set_aside_in_all"]) == (len(EVERY_TYPE), 0)


def test_a_walk_leaves_what_does_not_match_and_takes_a_pipeline(empty: Deployment, tmp_path: Path) -> None:
    call = 'ctx.walk("things", where={"kind": "a"}, update=[{"$set": {"n": {"$add": ["$n", "$_id"]}}}])'
    documents = [{"_id": n, "kind": "ab"[n % 2], "n": 10} for n in range(7)]

    arranged(empty, tmp_path, call, documents).up()

    assert [document["n"] for document in things(empty)] == [10, 10, 12, 10, 14, 10, 16]


def test_a_batch_grows_while_it_is_fast_up_to_its_limit(empty: Deployment, tmp_path: Path) -> None:
    call = f'ctx.walk("things", where={{}}, update={COUNT!r})'
    arranged(empty, tmp_path, call, [{"_id": n, "n": 0} for n in range(40)], batch_docs=4, most_docs=16).up()

    batch = [entry["details"].get("batch") for entry in empty.entries(**{"details.op": "walk"})]

    assert max(size for size in batch if size) > 4
    assert max(size for size in batch if size) <= 16


REFUSED = {
    "the validator": (
        {"n": {"$lt": 100}},
        {"_id": 7, "n": 99},
        121,
        "the validator does not allow it",
    ),
    "a wrong type": ({}, {"_id": 7, "n": "mara@example.org"}, 14, "wrong type"),
}


@pytest.mark.parametrize("op", ["walk", "backfill"])
@pytest.mark.parametrize("what", list(REFUSED))
def test_a_document_that_the_server_refuses_is_set_aside_and_the_others_are_changed_once(
    empty: Deployment, tmp_path: Path, what: str, op: str
) -> None:
    validator, poison, code, reason = REFUSED[what]
    update = {"$inc": {"n": 1}, "$set": {"seen": True}}
    call = f'ctx.{op}("things", where={{"seen": {{"$exists": False}}}}, update={update!r})'
    empty.admin.app.create_collection("things", validator=validator)
    documents = [{"_id": n, "n": 0} for n in range(20) if n != 7]
    runner = arranged(empty, tmp_path, call, [*documents, poison], batch_docs=16)

    done = runner.up()

    assert runner.count_set_aside(done) == 1
    assert {document["_id"]: document["n"] for document in things(empty)} == dict.fromkeys(range(20), 1) | {
        7: poison["n"]
    }
    assert aside(empty) == [
        {
            "revision": "v001_data_it",
            "step": 1,
            "collection": "things",
            "document_id": 7,
            "code": code,
            "reason": reason,
        }
    ]


def test_a_document_that_grows_over_16_megabytes_is_set_aside(empty: Deployment, tmp_path: Path) -> None:
    call = 'ctx.walk("things", where={}, update=[{"$set": {"b": "$a", "n": 1}}])'
    runner = arranged(empty, tmp_path, call, [{"_id": n, "a": "x" * (9_000_000 if n == 3 else 3)} for n in range(6)])

    done = runner.up()

    assert [(item["document_id"], item["code"]) for item in aside(empty)] == [(3, 10334)]
    assert [document.get("n") for document in things(empty)] == [1, 1, 1, None, 1, 1]
    assert runner.count_set_aside(done) == 1


@pytest.mark.parametrize("budget", [0, 2, 3])
@pytest.mark.parametrize("op", ["walk", "backfill"])
def test_more_refused_documents_than_the_error_budget_end_the_step(
    empty: Deployment, tmp_path: Path, op: str, budget: int
) -> None:
    update = {"$inc": {"n": 1}, "$set": {"seen": True}}
    where = {"seen": {"$exists": False}}
    call = f'ctx.{op}("things", where={where!r}, update={update!r}, error_budget={budget})'
    documents = [{"_id": n, "n": "mara@example.org" if n in {2, 3, 11} else 0} for n in range(13)]
    runner = arranged(empty, tmp_path, call, documents)

    if budget == 3:
        runner.up()
    else:
        with pytest.raises(StepFailed, match=rf"{budget + 1} documents of things .* wrong type \(code 14\)") as refused:
            runner.up()
        assert "mara" not in str(refused.value)
        assert refused.value.exit_code is ExitCode.PARTIAL

    assert len(aside(empty)) == min(budget, 3)
    assert all(document["n"] in (0, 1, "mara@example.org") for document in things(empty))


@pytest.mark.parametrize("update", [{"$no": {"n": 1}}, {"$set": {"n": 1}, "m": 2}, [{"$no": {}}]])
def test_an_update_that_is_none_sets_nothing_aside(empty: Deployment, tmp_path: Path, update: Any) -> None:
    call = f'ctx.walk("things", where={{}}, update={update!r})'

    with pytest.raises((StepFailed, ValueError), match="the update of things is not one"):
        arranged(empty, tmp_path, call, [{"_id": 1}]).up()

    assert aside(empty) == []
    assert things(empty) == [{"_id": 1}]


def test_documents_that_are_inserted_behind_the_place_are_filled_too(empty: Deployment, tmp_path: Path) -> None:
    app = empty.admin.app["things"]

    def insert_one_before() -> bool:
        if app.find_one({"n": 1}) is not None and app.find_one({"_id": -1}) is None:
            app.insert_one({"_id": -1})
        return False

    call = 'ctx.backfill("things", where={"n": {"$exists": False}}, update={"$inc": {"n": 1}})'
    runner = arranged(empty, tmp_path, call, [{"_id": n} for n in range(9)], should_stop=insert_one_before)

    runner.up()

    assert {document["_id"]: document["n"] for document in things(empty)} == dict.fromkeys(range(-1, 9), 1)


def test_a_document_that_still_matches_is_not_updated_twice(empty: Deployment, tmp_path: Path) -> None:
    """Only a later batch shows that the update does not take every document out of its where."""
    call = 'ctx.backfill("things", where={"n": {"$gte": 0}}, update=[{"$set": {"n": {"$subtract": ["$n", 1]}}}])'
    runner = arranged(empty, tmp_path, call, [{"_id": n, "n": 5 if n == 6 else 0} for n in range(8)])

    with pytest.raises(StepFailed, match="does not take documents out of its where"):
        runner.up()

    assert [document["n"] for document in things(empty)] == [-1] * 6 + [4] + [-1]


def test_a_batch_that_outlives_the_limit_of_a_transaction_is_halved(empty: Deployment, tmp_path: Path) -> None:
    slow = {"$function": {"body": "function(n) { sleep(100); return n + 1; }", "args": ["$n"], "lang": "js"}}
    call = f'ctx.walk("things", where={{}}, update=[{{"$set": {{"n": {slow!r}}}}}])'
    runner = arranged(empty, tmp_path, call, [{"_id": n, "n": 0} for n in range(32)], batch_docs=32)

    with impatient(empty):
        runner.up()

    assert [document["n"] for document in things(empty)] == [1] * 32
    assert aside(empty) == []


@contextmanager
def failing(empty: Deployment, times: int, **data: Any) -> Iterator[Callable[[], int]]:
    """Let the server fail commands; yields how often it did."""
    admin = empty.admin.client.admin
    point = {"configureFailPoint": "failCommand"}
    before = admin.command({**point, "mode": {"times": times}, "data": {"appName": "test", **data}})["count"]
    try:
        yield lambda: int(admin.command({**point, "mode": "off"})["count"]) - before
    finally:
        admin.command({**point, "mode": "off"})


def test_an_unknown_commit_is_committed_again_and_its_changes_are_not_made_again(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commits took effect, and nobody heard of it for longer than the driver tries."""
    monkeypatch.setattr(compliance.mongo, "TRANSACTION_LIMIT", timedelta(seconds=1))
    monkeypatch.setattr(batches, "FIRST_PAUSE", timedelta(milliseconds=10))
    call = f'ctx.walk("things", where={{}}, update={COUNT!r})'
    unknown = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
    lost: list[int] = []

    def lose() -> bool:
        """Begin to lose answers once the walk has begun."""
        if not lost and empty.admin.app["things"].find_one({"n": 1}) is not None:
            lost.append(1)
            empty.admin.client.admin.command(
                {
                    "configureFailPoint": "failCommand",
                    "mode": {"times": 400},
                    "data": {"failCommands": ["commitTransaction"], "writeConcernError": unknown},
                }
            )
        return False

    runner = arranged(empty, tmp_path, call, [{"_id": n, "n": 0} for n in range(30)], should_stop=lose)
    with failing(empty, 0, failCommands=["commitTransaction"]):
        runner.up()

    assert lost
    assert [document["n"] for document in things(empty)] == [1] * 30


def test_of_a_large_collection_a_sample_says_how_many_documents_there_are(
    empty: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = empty.admin.app["things"]
    documents.insert_many([{"n": number % 4} for number in range(1000)])

    assert estimate(documents, {"n": 0}) == (250, True)
    monkeypatch.setattr(walk, "COUNTED", 999)
    monkeypatch.setattr(walk, "SAMPLE", 400)
    found, is_exact = estimate(documents, {"n": 0})
    assert not is_exact
    assert 150 < found < 350
    assert estimate(documents, {"n": 9}) == (0, False)


def test_a_dry_run_counts_and_writes_nothing(empty: Deployment, tmp_path: Path) -> None:
    lines: list[str] = []
    call = f'ctx.walk("things", where={{}}, update={COUNT!r})'
    runner = arranged(empty, tmp_path, call, [{"_id": n, "n": 0} for n in range(3)], report=lines.append)

    runner.up(dry_run=True)

    assert "  walk 3 documents of things" in lines
    assert [document["n"] for document in things(empty)] == [0, 0, 0]


@pytest.mark.parametrize(("value", "code"), [("text", ExitCode.PARTIAL), (1, ExitCode.OK)])
def test_the_exit_code_says_whether_documents_were_set_aside(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, code: ExitCode
) -> None:
    call = f'ctx.walk("things", where={{}}, update={COUNT!r})'
    runner = arranged(empty, tmp_path, call, [{"_id": 1, "n": value}])
    for name, setting in empty.environ(tmp_path).items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("COMPLIANCE_MIGRATIONS", str(tmp_path / "scripts"))

    assert main([]) == code
    assert main([]) == ExitCode.OK
    assert runner.pending() == ()
