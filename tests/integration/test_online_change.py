"""An online change from start to complete, and back; what each write of an application leads to."""

import json
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from deployment import Deployment
from proxy import BEFORE_REPLY, BEFORE_REQUEST
from pymongo.collection import Collection
from quiet import quiet
from shaped import NAME, PEOPLE, Applications, agree, follower, shaped, wait_until_in_step
from typer.testing import CliRunner
from waiting import wait_until
from walked import proxied

from compliance.errors import DependencyRefused, IrreversibleMigration, RevisionEdited, ShapesDisagree, UnknownName
from compliance.mongo import Document
from compliance.settings import load_settings
from migrations.online.follow import ask_to_settle, follow_all, following, open_changes, wait_until_settled
from migrations.online.shape import Side, complete_new
from migrations.online.state import Doing, standing_of
from migrations.online.verify import find_disagreeing
from migrations.standing import State, standings
from worker.cli import build_cli


def people(deployment: Deployment) -> list[dict[str, Any]]:
    return list(deployment.admin.app[PEOPLE].find({}, sort=[("_id", 1)]))


def person(deployment: Deployment, id_: Any) -> Document | None:
    return deployment.admin.app[PEOPLE].find_one({"_id": id_}, {"_id": 0, "other": 0})


def state_of(deployment: Deployment) -> State:
    (found,) = (one for one in standings(deployment.runner().scripts()) if one.revision.name == NAME)
    return found.state


def actions(deployment: Deployment) -> list[str]:
    return [entry["action"] for entry in deployment.entries(entity_id=NAME)]


def test_up_expands_and_complete_contracts(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)

    deployment.runner().up()

    assert state_of(deployment) is State.DUAL
    assert all(agree(one) and one["other"] == 0 for one in people(deployment))
    assert deployment.runner().pending() == ()
    assert deployment.runner().complete(NAME).name == NAME
    assert people(deployment) == [{"_id": n, "other": 0, "first": f"A{n}", "last": f"B{n}"} for n in range(40)]
    assert state_of(deployment) is State.APPLIED
    assert {"migration.dual", "migration.completing", "migration.applied"} <= set(actions(deployment))
    assert deployment.admin.compliance["migration_writes"].count_documents({}) == 0
    (info,) = deployment.admin.app.list_collections(filter={"name": PEOPLE})
    assert info["options"]["validator"] == {"$jsonSchema": {"bsonType": "object", "required": ["first", "last"]}}
    assert info["options"]["validationLevel"] == "strict"
    with pytest.raises(IrreversibleMigration, match="completed, and its old shape is gone"):
        deployment.runner().down("zero")
    with pytest.raises(UnknownName, match="is not open: it is applied"):
        deployment.runner().complete(NAME)


def test_a_completed_change_is_verified_by_its_old_shape_which_is_gone(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    documents = deployment.admin.app[PEOPLE]
    wrong = f"{NAME}: 1 documents of {PEOPLE} are not as they should be"

    deployment.runner().up()
    deployment.runner().complete(NAME)
    assert deployment.runner().verify() == ()
    documents.update_one({"_id": 3}, {"$set": {"name": "A3 B3"}})
    assert [str(problem) for problem in deployment.runner().verify()] == [wrong]


def test_while_a_shape_is_removed_only_documents_of_both_can_disagree(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    deployment.runner().up()
    documents, (change,) = deployment.admin.app[PEOPLE], open_changes(deployment.admin)
    documents.update_many({"_id": {"$lt": 10}}, {"$unset": {"name": ""}})
    documents.update_one({"_id": 30}, {"$set": {"first": "Z"}})

    found = [find_disagreeing(deployment.admin, change.shape, is_leaving=is_leaving) for is_leaving in (False, True)]

    assert [(one.number, one.ids) for one in found if one] == [(11, (0, 1, 2, 3, 4)), (1, (30,))]


def test_both_applications_write_until_complete_and_no_write_is_lost(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    applications = Applications(deployment, list(range(40)))

    with applications.writing("old"):
        deployment.runner().up()
    runner = deployment.runner()
    with applications.writing("old", "new", "old", "new"), runner.following(runner.revisions[1]):
        wait_until(lambda: min(applications.written.values()) > 100, timeout=30, what="both have written")
    with applications.writing("new", "new"):
        deployment.runner().complete(NAME)

    assert applications.lost("first", "last") == []
    assert all("name" not in one for one in people(deployment))


def test_rollback_keeps_what_both_applications_wrote(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    schema = {"$jsonSchema": {"bsonType": "object", "required": ["name"]}}
    deployment.admin.app.command("collMod", PEOPLE, validator=schema, validationLevel="moderate")
    applications = Applications(deployment, list(range(40)))
    deployment.runner().up()
    runner = deployment.runner()

    with applications.writing("old", "new", "new"), runner.following(runner.revisions[1]):
        wait_until(lambda: min(applications.written.values()) > 60, timeout=30, what="both have written")
    with applications.writing("old"):
        deployment.runner().rollback(NAME)

    assert applications.lost("name") == []
    assert all("first" not in one and "last" not in one for one in people(deployment))
    assert deployment.admin.compliance["migration_writes"].count_documents({}) == 0
    (info,) = deployment.admin.app.list_collections(filter={"name": PEOPLE})
    assert (info["options"]["validator"], info["options"]["validationLevel"]) == (schema, "moderate")
    assert deployment.admin.compliance["declared_schema"].count_documents({"collection": PEOPLE}) == 0
    assert state_of(deployment) is State.PENDING
    deployment.runner().up()
    assert state_of(deployment) is State.DUAL
    assert all(agree(one) for one in people(deployment))


def test_what_depends_on_an_open_change_waits_for_it(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path, later=True)
    with pytest.raises(UnknownName, match="not open: it was never started"):
        deployment.runner().complete(NAME)
    with pytest.raises(UnknownName, match="declares no CHANGE"):
        deployment.runner().complete("v002_post_look")

    with pytest.raises(DependencyRefused, match="v002_post_look depends on is open; complete it first"):
        deployment.runner().up()

    assert state_of(deployment) is State.DUAL
    with pytest.raises(DependencyRefused, match="complete it first"):
        deployment.runner().pending()
    script = deployment.settings.migrations / f"{NAME}.py"
    text = script.read_text()
    script.write_text(text.replace('"first"', '"given"'))
    with pytest.raises(RevisionEdited, match=NAME):
        deployment.runner().up()
    script.write_text(text)
    deployment.runner().complete(NAME)
    assert [one.name for one in deployment.runner().up()] == ["v002_post_look"]


STEPS: dict[str, Any] = {
    "an update of the old shape": [{"$set": {"name": "X Y"}}],
    "an update of the new shape": [{"$set": {"first": "P", "last": "Q"}}],
    "an update of a part of the new shape": [{"$set": {"last": "Q"}}],
    "an update of both": [{"$set": {"name": "X Y", "first": "P", "last": "Q"}}],
    "a value that up would not give": [{"$set": {"first": "Anna Maria", "last": "Q"}}],
    "the old shape, then the new one": [{"$set": {"name": "X Y"}}, {"$set": {"first": "P", "last": "Q"}}],
    "the new shape, then the old one": [{"$set": {"first": "P", "last": "Q"}}, {"$set": {"name": "X Y"}}],
    "a removal of the old shape": [{"$unset": {"name": ""}}],
    "a removal of the new shape": [{"$unset": {"first": "", "last": ""}}],
    "something else": [{"$set": {"city": "Z"}}],
    "a replacement by the old shape": {"name": "X Y"},
    "a replacement by the new shape": {"first": "P", "last": "Q"},
    "a replacement by both, which agree": {"name": "P Q", "first": "P", "last": "Q"},
    "a replacement by both, which do not": {"name": "X Y", "first": "P", "last": "Q"},
    "a deletion": None,
}
OLD_WINS = {"name": "X Y", "first": "X", "last": "Y"}
NEW_WINS = {"name": "P Q", "first": "P", "last": "Q"}
LEFT: dict[str, Any] = {
    "an update of the old shape": OLD_WINS,
    "an update of the new shape": NEW_WINS,
    "an update of a part of the new shape": {"name": "A Q", "first": "A", "last": "Q"},
    "an update of both": NEW_WINS,
    "a value that up would not give": {"name": "Anna Maria Q", "first": "Anna Maria", "last": "Q"},
    "the old shape, then the new one": NEW_WINS,
    "the new shape, then the old one": OLD_WINS,
    "a removal of the old shape": {},
    "a removal of the new shape": {},
    "something else": {"name": "A B", "first": "A", "last": "B", "city": "Z"},
    "a replacement by the old shape": OLD_WINS,
    "a replacement by the new shape": NEW_WINS,
    "a replacement by both, which agree": NEW_WINS,
    "a replacement by both, which do not": {"name": "X Y", "first": "P", "last": "Q"},
    "a deletion": None,
}


def carry_out(collection: Collection[Document], id_: str) -> None:
    step = STEPS[id_]
    if isinstance(step, list):
        for update in step:
            collection.update_one({"_id": id_}, update)
    elif step is None:
        collection.delete_one({"_id": id_})
    else:
        collection.replace_one({"_id": id_}, step)


def test_what_each_write_leads_to_and_who_settles_the_rest(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path, people=0)
    collection = deployment.admin.app[PEOPLE]
    collection.insert_many([{"_id": id_, "name": "A B"} for id_ in STEPS])
    deployment.runner().up()
    collection.insert_many([{"_id": "by old", "name": "X Y"}, {"_id": "by new", "first": "P", "last": "Q"}])
    collection.insert_one({"_id": "by both", "name": "X Y", "first": "P", "last": "Q"})
    for id_ in STEPS:
        carry_out(collection, id_)

    with following(follower(deployment)):
        wait_until_in_step(deployment)
        inserted = [person(deployment, id_) for id_ in ("by old", "by new", "by both")]
        left = {id_: person(deployment, id_) for id_ in STEPS}
        with pytest.raises(ShapesDisagree, match=r"^1 documents of people hold two shapes that do not agree: .* not;"):
            deployment.runner().complete(NAME)
        request = ask_to_settle(deployment.admin, NAME, keep=Side.OLD, by="test", clock=deployment.services().clock)
        wait_until_settled(deployment.admin, NAME, request, clock=deployment.services().clock)

    assert inserted == [OLD_WINS, NEW_WINS, NEW_WINS]
    assert left == LEFT
    assert person(deployment, "a replacement by both, which do not") == OLD_WINS
    assert person(deployment, "an update of the new shape") == NEW_WINS
    assert actions(deployment).count("migration.settled") == 1


def test_a_document_of_one_shape_keeps_it_whichever_shape_a_person_settles_for(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path, people=0)
    collection, admin = deployment.admin.app.create_collection(PEOPLE), deployment.admin
    deployment.runner().up()
    collection.create_index("last", unique=True, sparse=True)

    with following(follower(deployment)):
        collection.insert_many([{"_id": 1, "name": "A Same"}, {"_id": 2, "name": "B Same"}])
        wait_until(
            lambda: admin.compliance["set_aside"].count_documents({}) == 1,
            timeout=30,
            what="one is set aside",
        )
        request = ask_to_settle(admin, NAME, keep=Side.NEW, by="test", clock=deployment.services().clock)
        wait_until_settled(admin, NAME, request, clock=deployment.services().clock)

    assert [one["name"] for one in collection.find({}, sort={"_id": 1})] == ["A Same", "B Same"]


@pytest.mark.parametrize("when", [BEFORE_REQUEST, BEFORE_REPLY])
def test_a_person_who_settles_over_a_line_that_breaks_again_and_again_settles_once(
    empty: Deployment, tmp_path: Path, when: str
) -> None:
    """The driver itself tries once more, and no oftener."""
    deployment = shaped(empty, tmp_path, people=1)
    deployment.runner().up()
    clock, databases = deployment.services().clock, deployment.runner().databases

    with following(follower(deployment)), proxied(deployment, databases, at=1, when=when) as (proxy, by_proxy):
        proxy.times = 2
        request = ask_to_settle(by_proxy, NAME, keep=Side.OLD, by="test", clock=clock)
        assert proxy.broke == "update"
        proxy.at, proxy.times = proxy.commands + 1, 2
        wait_until_settled(by_proxy, NAME, request, clock=clock)

    assert proxy.broke == "find"
    assert actions(deployment).count("migration.settled") == 1


def test_a_second_start_goes_by_nothing_that_the_first_one_left(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    app, compliance = deployment.admin.app, deployment.admin.compliance
    deployment.runner().up()
    with following(follower(deployment)):
        wait_until_in_step(deployment)
        ask_to_settle(deployment.admin, NAME, keep=Side.NEW, by="test", clock=deployment.services().clock)
        deployment.runner().rollback(NAME)
    schema = {"$jsonSchema": {"bsonType": "object", "required": ["name"]}}
    app.command("collMod", PEOPLE, validator=schema, validationLevel="moderate")

    stop = Event()
    runner = deployment.runner()
    keeping = Thread(
        target=follow_all,
        args=(runner.databases,),
        kwargs={
            "clock": runner.clock,
            "actor": "test",
            "length": runner.lease,
            "should_stop": stop.is_set,
            "told": lambda _: None,
        },
    )
    keeping.start()
    try:
        deployment.runner().up()
        wait_until_in_step(deployment)
        place = compliance["migration_lease"].find_one({"_id": f"reconcile {NAME}"})["checkpoint"]
        deployment.runner().rollback(NAME)
    finally:
        stop.set()
        keeping.join(30)

    events = list(compliance["migration_history"].find({"revision": NAME}, sort=[("fence", 1), ("_id", 1)]))
    started = [one["_id"] for one in events if one["event"] == "started"]
    assert (place["passage"], len(started)) == (started[-1], 2)
    assert [one["name"] for one in people(deployment)] == [f"A{n} B{n}" for n in range(40)]
    (info,) = app.list_collections(filter={"name": PEOPLE})
    assert info["options"]["validator"] == schema


def test_where_the_oplog_does_not_reach_back_every_document_is_looked_at(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    deployment.runner().up()
    lease = {"_id": f"reconcile {NAME}"}
    others = deployment.admin.app["others"]
    with others.watch() as stream:  # an event of which the stream of people knows nothing is one that is gone
        others.insert_one({})
        gone = next(stream)["_id"]
    deployment.admin.compliance["migration_lease"].update_one(lease, {"$set": {"checkpoint.token": gone}})
    collection = deployment.admin.app[PEOPLE]
    collection.update_one({"_id": 1}, {"$set": {"name": "X Y"}})
    collection.insert_many([{"_id": "old", "name": "X Y"}, {"_id": "new", "first": "P", "last": "Q"}])
    lines: list[str] = []

    with following(follower(deployment, told=lines.append)):
        wait_until(lambda: person(deployment, "new") == NEW_WINS, timeout=20, what="what is missing is filled")
        wait_until_in_step(deployment)

    assert person(deployment, "old") == OLD_WINS
    assert person(deployment, 1) == {"name": "X Y", "first": "A1", "last": "B1"}
    assert lost(deployment) == [(1, "oplog")]
    assert any("no longer reaches back" in line for line in lines)


def lost(deployment: Deployment) -> list[Any]:
    entries = deployment.entries(entity_id=NAME, action="migration.history_lost")
    return [(one["details"]["lost"], one["details"]["why"]) for one in entries]


def test_a_collection_that_was_renamed_away_and_back_is_compared_and_followed_again(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path)
    app = deployment.admin.app
    deployment.runner().up()
    lines: list[str] = []

    with following(follower(deployment, told=lines.append)):
        wait_until_in_step(deployment)
        app[PEOPLE].rename("elsewhere")
        wait_until(lambda: doing(deployment) is Doing.AWAITING, timeout=20, what="it is missed")
        with pytest.raises(ShapesDisagree, match=r"^people was dropped or renamed: bring it back"):
            deployment.runner().complete(NAME)
        app["elsewhere"].insert_many([{"_id": "old", "name": "X Y"}, {"_id": "new", "first": "P", "last": "Q"}])
        app["elsewhere"].update_one({"_id": 1}, {"$set": {"name": "X Y"}})
        app["elsewhere"].rename(PEOPLE)
        app[PEOPLE].update_one({"_id": 2}, {"$set": {"name": "X Y"}})
        wait_until_in_step(deployment)
        app[PEOPLE].update_one({"_id": 3}, {"$set": {"first": "P", "last": "Q"}})
        wait_until_in_step(deployment)

    assert (person(deployment, "old"), person(deployment, "new")) == (OLD_WINS, NEW_WINS)
    assert person(deployment, 1) == {"name": "X Y", "first": "A1", "last": "B1"}
    assert person(deployment, 3) == NEW_WINS
    assert (lost(deployment), doing(deployment)) == ([(1, "collection")], Doing.FOLLOWING)
    assert any("people was dropped or renamed; once it is back" in line for line in lines)


def test_a_collection_that_was_made_anew_while_nobody_looked_is_compared_and_followed(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path)
    collection = deployment.admin.app[PEOPLE]
    deployment.runner().up()
    collection.drop()
    with following(follower(deployment)):
        wait_until(lambda: doing(deployment) is Doing.AWAITING, timeout=20, what="it is missed")
    collection.insert_one({"_id": "old", "name": "X Y"})

    with following(follower(deployment)):
        wait_until_in_step(deployment)
        collection.insert_one({"_id": "later", "name": "X Y"})
        wait_until_in_step(deployment)

    assert (person(deployment, "old"), person(deployment, "later")) == (OLD_WINS, OLD_WINS)
    assert lost(deployment) == [(1, "collection")]


def doing(deployment: Deployment) -> Doing:
    return standing_of(deployment.admin, NAME).doing


def test_a_document_for_which_a_way_fails_is_set_aside_and_the_others_are_followed(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path, people=12)
    deployment.runner().up()
    collection = deployment.admin.app[PEOPLE]
    long_ago = {"_id": {"session": b"x", "number": 1}, "revision": NAME, "at": datetime(2020, 1, 1, tzinfo=UTC)}
    deployment.admin.compliance["migration_writes"].insert_one(long_ago)
    for id_ in range(12):
        collection.update_one({"_id": id_}, {"$set": {"name": "X Y"}})
    collection.insert_one({"_id": "bad", "name": 5}, bypass_document_validation=True)

    with following(follower(deployment)):
        wait_until_in_step(deployment)
        with pytest.raises(ShapesDisagree, match="up or down fails for a document"):
            deployment.runner().complete(NAME)

    assert [person(deployment, id_) for id_ in range(12)] == [OLD_WINS] * 12
    (aside,) = deployment.admin.compliance["set_aside"].find()
    assert (aside["document_id"], aside["revision"], aside["collection"]) == ("bad", NAME, PEOPLE)
    assert "name" not in str(aside["reason"])
    assert deployment.admin.compliance["migration_writes"].count_documents(long_ago) == 0
    assert deployment.admin.compliance["migration_writes"].count_documents({}) > 0


def test_what_was_set_aside_while_following_is_settled_by_a_write_or_by_retry(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path, people=0)
    collection, aside = deployment.admin.app.create_collection(PEOPLE), deployment.admin.compliance["set_aside"]
    deployment.runner().up()
    collection.create_index("last", unique=True, sparse=True)
    collection.insert_one({"_id": 0, "name": "A Same"})

    with following(follower(deployment)):
        wait_until(lambda: agree(person(deployment, 0) or {}), timeout=20, what="the first is in step")
        collection.insert_many([{"_id": id_, "name": f"{id_} Same"} for id_ in ("written", "retried", "gone", "both")])
        wait_until(lambda: aside.count_documents({}) == 4, timeout=20, what="four are set aside")
        for n in range(3):
            collection.update_one({"_id": "retried"}, {"$set": {"name": f"{n} Same"}})
            collection.update_one({"_id": "written"}, {"$set": {"name": f"{n} Same"}})
        collection.update_one({"_id": "written"}, {"$set": {"name": "X Y"}})
        wait_until_in_step(deployment)
    left = {one["document_id"]: one.get("settled_because") for one in aside.find()}
    number = aside.count_documents({})
    unhelped = deployment.runner().retry_set_aside()
    collection.drop_index("last_1")
    collection.delete_one({"_id": "gone"})
    collection.update_one({"_id": "both"}, {"$set": {"first": "P", "last": "Q"}})
    helped = deployment.runner().retry_set_aside()
    with following(follower(deployment)):
        wait_until_in_step(deployment)

    assert (number, left) == (4, {"written": "written", "retried": None, "gone": None, "both": None})
    assert (unhelped, helped) == ((0, 3), (2, 1))
    assert person(deployment, "retried") == {"name": "2 Same", "first": "2", "last": "Same"}
    assert person(deployment, "both") == NEW_WINS
    settled = {one["document_id"]: one.get("settled_because") for one in aside.find()}
    assert settled == {"written": "written", "retried": "retried", "gone": "retried", "both": "written"}
    deployment.runner().complete(NAME)
    assert aside.count_documents({"settled_at": {"$exists": False}}) == 0


def test_a_change_is_refused_before_anything_is_changed(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    collection = deployment.admin.app[PEOPLE]
    for document, fault in (
        ({"_id": "x", "name": "A B C"}, r"down after up gives another value for 1 of .*: x; correct the pipelines"),
        ({"_id": "y", "name": 5}, r"up or down fails for a document \(MongoDB refused an operation \(code \d+\)\)"),
        ({"_id": "z", "first": "P"}, r"1 documents of people have first, last before the change begins: z"),
    ):
        collection.insert_one(document)
        with pytest.raises(ShapesDisagree, match=fault):
            deployment.runner().up()
        collection.delete_one({"_id": document["_id"]})

    assert all("first" not in one for one in people(deployment))
    deployment.runner().rollback(NAME)
    assert state_of(deployment) is State.PENDING


def test_a_part_that_is_written_before_the_backfill_comes_is_completed(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    deployment.runner().up()
    shape = follower(deployment).change.shape
    collection = deployment.admin.app[PEOPLE]
    collection.insert_one({"_id": "x", "name": "A B", "last": "Q", "more": 1})

    collection.update_one({"_id": "x"}, complete_new(shape))

    assert person(deployment, "x") == {"name": "A Q", "last": "Q", "more": 1, "first": "A"}


def test_the_process_follows_what_is_open_and_nothing_else(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    looked: list[int] = []
    runner = deployment.runner()

    def should_stop() -> bool:
        if len(looked) == 1:
            deployment.runner().up()
            deployment.admin.app[PEOPLE].update_one({"_id": 1}, {"$set": {"name": "X Y"}})
        return len(looked) > 1 and (person(deployment, 1) or {}).get("first") == "X"

    follow_all(
        runner.databases,
        clock=runner.clock,
        actor="test",
        length=runner.lease,
        should_stop=should_stop,
        told=lambda _: None,
        on_look=lambda: looked.append(1),
    )

    assert person(deployment, 1) == OLD_WINS


def test_the_commands_lead_from_start_to_complete_and_say_how_it_stands(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path)
    environ = deployment.environ(tmp_path) | {"COMPLIANCE_MIGRATIONS": str(deployment.settings.migrations)}
    obj = quiet(load_settings(environ))

    def online(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(build_cli(), ["migrate", "online", *arguments, "--json"], obj=obj)
        return done.exit_code, json.loads(done.stdout) if done.stdout else done.exception

    deployment.runner().up("000")
    code, started = online("start", NAME)
    assert (code, started["state"], started["disagree"]) == (0, "both shapes", 0)
    code, told = online("status", "001")
    assert (code, told["kept_in_step_by"], told["doing"]) == (3, None, "following changes")
    with following(follower(deployment)):
        wait_until(lambda: online("status", "001")[0] == 0, timeout=20, what="somebody keeps them in step")
        deployment.admin.app[PEOPLE].rename("elsewhere")
        wait_until(lambda: online("status", "001")[0] == 3, timeout=20, what="the collection is missed")
        assert online("status", "001")[1]["doing"] == "waiting for the collection"
        deployment.admin.app["elsewhere"].rename(PEOPLE)
        wait_until(lambda: online("status", "001")[0] == 0, timeout=20, what="it is followed again")
    code, error = online("status", "v000_pre_foundation")
    assert (code, type(error)) == (1, UnknownName)
    assert online("rollback", "001") == (0, {"name": NAME, "state": "pending"})
    assert online("start", "001")[0] == 0
    assert online("complete", "001") == (0, {"name": NAME, "state": "applied"})
