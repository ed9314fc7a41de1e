"""A copy takes the place of a collection: nothing that was acknowledged is lost, nobody who was erased comes back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bson import Int64, ObjectId
from deployment import Deployment
from faults import Died
from pymongo.errors import WriteError
from remade import (
    MAKE,
    PLACES,
    arranged,
    assert_nothing_lost,
    control,
    names,
    some,
    things,
    writing,
)

from compliance.errors import (
    MigrationError,
    StepFailed,
)
from compliance.mongo import Document
from migrations.ops.rebuild import going
from migrations.ops.rebuild.changes import HistoryLost
from migrations.ops.rebuild.copy import Copier
from migrations.ops.rebuild.exchange import Exchange
from migrations.progress import Progress


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


def test_no_acknowledged_write_is_lost_beside_writers(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(100))

    with writing(empty) as wanted:
        deployment.runner().up()
        threading.Event().wait(0.2)

    assert_nothing_lost(empty, wanted)
    rebuilt = [one for one in things(empty).values() if one["_id"] < 1000]
    assert all(one["total"] == one["n"] + 1 and "old" not in one for one in rebuilt)


@pytest.mark.parametrize("method", ["made", "differing"])
def test_nobody_runs_after_writers_who_are_faster(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    original, added = getattr(Copier, method), []

    def outrun(self: Copier, where: Document, session: Any) -> Any:
        assert len(added) < 400, "it runs after them"
        for _ in range(8):  # twice a batch
            added.append(1000 + len(added))
            empty.admin.app["things"].insert_one({"_id": added[-1], "n": 1, "m": 1})
        return original(self, where, session)

    with monkeypatch.context() as patched:
        patched.setattr(Copier, method, outrun)
        patched.setattr(Exchange, "go", die)
        with pytest.raises(Died):
            deployment.runner().up()
    deployment.runner().up()

    found = things(empty)
    assert set(found) == {*range(11), *added}
    assert all(one["total"] == one["n"] + 1 for one in found.values())


def die(*_: object, **__: object) -> None:
    raise Died


@pytest.mark.parametrize("method", ["made", "_try"])
def test_a_copy_that_nobody_can_bring_up_to_date_is_made_anew(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    with monkeypatch.context() as patched:
        patched.setattr(PLACES[method], method, die)
        with pytest.raises(Died):
            deployment.runner().up()
    empty.admin.app["things"].update_one({"_id": 3}, {"$inc": {"m": 4}})
    lines, followed = [], going.follow

    @contextmanager
    def lost_once(*arguments: Any) -> Iterator[Any]:
        monkeypatch.setattr(going, "follow", followed)
        raise HistoryLost("it does not reach back")
        yield

    monkeypatch.setattr(going, "follow", lost_once)
    deployment.runner(report=lines.append).up()

    assert any("does not reach back to where the copy stood; it is made anew" in line for line in lines)
    assert things(empty)[3] == {"_id": 3, "n": 3, "m": 5, "total": 8}
    begun = empty.entries(**{"details.op": "rebuild", "details.phase": "copy"})
    assert (len(begun), names(empty), len(things(empty))) == (2, {"things"}, 11)


def test_people_see_which_part_of_it_goes_on(empty: Deployment, tmp_path: Path) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    told: list[Progress] = []

    deployment.runner(follow=told.append).up()

    parts = list(dict.fromkeys((one.phase, one.of) for one in told if one.phase != "copy" and one.of))
    assert parts == [("follow", 11), ("compare", 11), ("exchange", 11)]
    assert all(one.documents <= one.of for one in told)
    assert any("compare: 0 of 11 documents" in one.line for one in told)
