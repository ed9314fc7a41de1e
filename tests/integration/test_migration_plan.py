"""A plan shows the commands that a run sends, what they cost, and writes nothing."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from deployment import Deployment
from listening import listened, sent
from migrated import NAMES, names, user, write_scripts
from quiet import quiet
from stepping import dry
from typer.testing import CliRunner

from compliance.errors import LeaseLost, StepFailed
from compliance.mongo import Databases, Document, open_client
from compliance.settings import load_settings
from migrations.command import Command
from migrations.ops.estimate import ASSUMED_RATE
from migrations.preview import Preview, describe, extended, lines
from migrations.runner import Runner
from migrations.sketch import Estimate, PlannedStep, masked_insert
from migrations.wish import Wish
from worker.cli import build_cli

PEOPLE = 120
SECRET = "mara@example.org"

EVERY = {
    "v001_pre_schema.py": '''
        """Everything about collections and indexes."""

        OLD = {"bsonType": "object", "required": ["k"]}
        NEW = {"bsonType": "object", "required": ["k", "m"]}


        def up(ctx):
            """On a collection that is to come, and on one that is there."""
            ctx.create_collection("things", schema=OLD)
            ctx.create_index("things", "ix_n", [("n", 1)])
            ctx.create_unique("things", "ux_k", [("k", 1)], options={"sparse": True})
            ctx.hide_index("things", "ix_n")
            ctx.unhide_index("things", "ix_n")
            ctx.drop_index("things", "ix_n")
            ctx.set_schema("things", schema=NEW, level="moderate")
            ctx.roll_out_validator("things", OLD)
            ctx.roll_out_validator("people", OLD, to="moderate")
            ctx.create_index("people", "ix_n", [("n", 1)])
            ctx.create_unique("people", "ux_email", [("email", 1)])
            ctx.hide_index("people", "ix_n")


        def down(ctx):
            """Drop it."""
            ctx.drop_index("people", "ux_email")
            ctx.drop_collection("things")
    ''',
    "v002_data_people.py": '''
        """Everything about documents."""


        def upper(document):
            """Compute."""
            return {"name": document["name"].upper()}


        def seed(tx):
            """Write what stands here."""
            tx.insert("seeds", {"_id": 1, "n": 1}, {"_id": 2, "n": 2})
            tx.update("seeds", {"n": 1}, {"$set": {"n": 3}})
            tx.delete("seeds", {"n": 2})


        def copy(tx):
            """Write what was read."""
            found = tx.find("people", {"n": 1}, fields=("email",))
            tx.insert("copies", *found)
            tx.update("people", {"email": found[0]["email"]}, {"$set": {"copied": found[0]["email"]}})


        def opaque(database):
            """Nothing that the engine knows of."""
            database["opaque"].update_one({"_id": 1}, {"$set": {"n": 1}}, upsert=True)


        def up(ctx):
            """In batches, in one transaction, and out of sight."""
            ctx.backfill("people", where={"seen": {"$exists": False}}, update={"$set": {"seen": 1}})
            ctx.walk("people", where={"n": {"$gte": 0}}, update=[{"$set": {"n": {"$add": ["$n", 1]}}}])
            ctx.transform("people", where={"n": 1}, fields=("name",), function=upper)
            ctx.atomic("seed", seed)
            ctx.atomic("copy", copy)
            ctx.python("fill", opaque, reason="no other step upserts")
            ctx.verify("people", none={"seen": 0})
            ctx.gate("open", until=lambda database: True)
            ctx.erase_people("people", where={"n": 2})


        def down(ctx):
            """Leave it."""
    ''',
    "v003_post_events.py": '''
        """Time buckets."""


        def up(ctx):
            """Share out."""
            ctx.partition("events", field="at", every="month")


        def down(ctx):
            """Bring back."""
            ctx.merge_partitions("events")
    ''',
    "v004_post_retention.py": '''
        """Drop old buckets."""


        def up(ctx):
            """One is left."""
            ctx.drop_buckets("events", keep=1)


        def down(ctx):
            """Gone."""
    ''',
}


def arrange(deployment: Deployment, folder: Path) -> Deployment:
    """Documents, and a folder with a script for every operation."""
    app = deployment.admin.app
    people: list[Document] = [
        {"_id": ObjectId(), "n": n, "k": n, "name": f"n{n}", "email": SECRET[n % 3 :] + str(n)} for n in range(PEOPLE)
    ]
    app["people"].insert_many(people)
    app["people"].update_one({"n": 1}, {"$set": {"email": SECRET}})
    dates = [datetime(2020, month, 1, tzinfo=UTC) for month in (1, 2)]
    app["events"].create_index("at", name="ix_at")
    app["events"].insert_many([{"_id": f"e-{n}", "at": dates[n % 2], "who": SECRET} for n in range(6)])
    return deployment.with_settings(migrations=write_scripts(folder / "scripts", EVERY))


def steps(preview: Preview) -> list[PlannedStep]:
    return [step for script in preview.scripts for step in script.steps]


def planned(preview: Preview) -> list[Command]:
    return [command for step in steps(preview) for command in step.commands]


def as_sent(command: Command, bodies: list[dict[str, Any]]) -> list[int]:
    """The places in *bodies* where *command* was sent; of one that hides values, where everything else was."""
    if not command.is_masked:
        return [n for n, body in enumerate(bodies) if sent(body) == extended(command)]
    return [n for n, body in enumerate(bodies) if is_like(command, body)]


def is_like(command: Command, body: dict[str, Any]) -> bool:
    if next(iter(body)) != command.name:
        return False
    if command.name == "renameCollection":
        return str(body["to"]).split("_")[:3] == str(command.body["to"]).split("_")[:3] and set(command.body) <= set(
            body
        )
    if body[command.name] != command.collection:
        return False
    if command.name == "insert":
        shown = masked_insert(Command(body=body)).body["documents"]
        return [set(one) - {"_id"} for one in shown] == [set(one) - {"_id"} for one in command.body["documents"]]
    if "validator" in command.body:
        told, shown = (one.get("validator", {}).get("$comment", "") for one in (body, command.body))
        return is_like_name(told, shown.replace('"<fence>"', '{"$numberInt": "<fence>"}'))
    return bool(set(body) & {"updates", "deletes"} == set(command.body) & {"updates", "deletes"})


def is_like_name(sent_: str, shown: str) -> bool:
    """Whether a name is the one that is shown, whose fence a plan cannot know."""
    return re.fullmatch(re.escape(shown).replace("<fence>", r"\d+"), sent_) is not None


def compare(preview: Preview, databases: Databases, events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every planned command was sent, in this order; what was sent to the application beside them."""
    at = -1
    used = set()
    for command in planned(preview):
        target = {"": databases.name, "compliance": databases.compliance.name, "admin": "admin"}[command.database]
        bodies = [body if name == target else {"another": 1} for name, body in events]
        later = [n for n in as_sent(command, bodies) if n > at]
        assert later, extended(command)
        at = later[0]
        used.add(at)
        assert (bodies[at].get("autocommit") is False) == command.in_transaction
    return [body for n, (name, body) in enumerate(events) if name == databases.name and n not in used]


@contextmanager
def nothing_written(deployment: Deployment) -> Iterator[None]:
    """The oplog holds no entry of any of our databases after the block that it did not hold before."""
    oplog = deployment.admin.client["local"]["oplog.rs"]
    last = oplog.find_one({}, {"ts": 1}, sort=[("$natural", -1)])
    assert last is not None
    yield
    mine = {"ts": {"$gt": last["ts"]}, "ns": {"$regex": f"^{deployment.name}"}}
    nested = {"ts": {"$gt": last["ts"]}, "o.applyOps.ns": {"$regex": f"^{deployment.name}"}}
    assert list(oplog.find({"$or": [mine, nested]})) == []


def run(deployment: Deployment, runner: Runner, wish: Wish, preview: Preview) -> list[dict[str, Any]]:
    with listened(deployment) as (databases, heard):
        assert replace(runner, databases=databases).up(wish=wish) == preview.revisions
        return compare(preview, databases, heard.events)


def test_the_reference_scripts_send_what_their_plan_shows(empty: Deployment) -> None:
    admin, runner = empty.admin, empty.runner()
    runner.up("001")
    admin.app["users"].insert_many([user(email=f"{n}-{SECRET}") for n in range(3)])
    admin.app["artists"].insert_one({"genres": ["Rock"]}, bypass_document_validation=True)
    with nothing_written(empty):
        preview = runner.preview()

    assert names(preview.revisions) == NAMES[2:]
    beside = run(empty, runner, Wish(), preview)

    assert [body for body in beside if sent(body).count('"$in": []') == 0] == []
    text = "\n".join(lines(preview))
    assert SECRET not in text
    assert '{"createIndexes": "users", "indexes": [{"unique": true, "key": {"email": {"$numberInt": "1"}}' in text


def test_the_way_back_and_the_foundation_send_what_their_plan_shows(empty: Deployment) -> None:
    runner = empty.runner()
    with nothing_written(empty):
        first = runner.preview(Wish(target="001"))
    with listened(empty) as (databases, heard):
        replace(runner, databases=databases).up("001")
        assert compare(first, databases, heard.events) == []
    assert [command.database for command in planned(first)[:3]] == ["compliance"] * 3
    with nothing_written(empty):
        back = runner.preview_down("zero")
    with listened(empty) as (databases, heard):
        assert replace(runner, databases=databases).down("zero") == back.revisions
        assert compare(back, databases, heard.events) == []
    assert [command.body["drop"] for command in planned(back)][:2] == ["analytics", "playlists"]


def test_every_operation_sends_what_its_plan_shows(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    runner = deployment.runner()
    runner.up("000")
    with nothing_written(empty):
        preview = runner.preview(Wish(target="003"))

    beside = run(deployment, runner, Wish(target="003"), preview)

    updates = [body for body in beside if '"$in": []' not in sent(body)]
    more = [(next(iter(body)), body[next(iter(body))]) for body in updates]
    assert set(more) == {("update", "people"), ("update", "opaque")}  # further batches, and what nobody can know
    text = "\n".join(lines(preview))
    assert "mara" not in text
    assert "e-1" not in text
    told = {step.what: step.opaque for step in steps(preview) if step.opaque}
    assert told == {
        "transform people": "values are computed by a function; one document is shown, with types for values",
        "copy": "a function has read people: types are shown for the values that it writes then",
        "fill": "a function of which the engine knows nothing: no other step upserts",
    }
    assert '{"$set": {"name": "<str>"}}' in text

    with nothing_written(empty):
        last = runner.preview()
    assert run(deployment, runner, Wish(), last) == []
    assert [command.body.get("drop") for command in planned(last)][1::2] == ["events_2020_01", "events_2020_02"]


def test_buckets_come_back_as_their_plan_shows(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    runner = deployment.runner()
    runner.up("003")
    with nothing_written(empty):
        preview = runner.preview_down("002")

    with listened(deployment) as (databases, heard):
        replace(runner, databases=databases).down("002")
        assert compare(preview, databases, heard.events) == []

    assert "mara" not in "\n".join(lines(preview))
    assert [command.name for command in planned(preview)] == ["insert", "delete"] * 2 + ["drop"] * 3


KEPT = '''
        """Overwrite, and give back."""

        from migrations.context import timedelta


        def up(ctx):
            """Twice."""
            ctx.walk("people", where={}, update={"$set": {"name": "-"}}, keep_before=timedelta(days=1))
            ctx.walk("people", where={}, update={"$unset": {"email": ""}}, keep_before=timedelta(days=1))


        def down(ctx):
            """Give back."""
            ctx.restore("people")
'''


def test_what_was_overwritten_comes_back_as_its_plan_shows(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    write_scripts(tmp_path / "kept", {"v001_data_kept.py": KEPT})
    runner = deployment.with_settings(migrations=tmp_path / "kept").runner()
    runner.up()
    people = empty.admin.app["people"]
    people.update_one({"n": 3}, {"$set": {"email": "somebody@else"}})
    people.delete_one({"n": 4})
    with nothing_written(empty):
        preview = runner.preview_down("000")

    with listened(deployment) as (databases, heard):
        replace(runner, databases=databases).down("000")
        compare(preview, databases, heard.events)

    (step,) = steps(preview)
    assert (step.opaque, [(command.name, command.collection) for command in step.commands]) == (
        "",
        [("update", "people"), ("delete", "compliance_pre_images"), ("update", "compliance_pre_images")],
    )
    updates = step.commands[0].body["updates"]
    assert (len(updates), updates[0]["u"]) == (48, {"$set": {"email": "<str>"}})
    assert set(updates[0]) == {"q", "u"}
    assert step.commands[1:] == [command for command in step.commands[1:] if not command.is_masked]
    assert step.estimate is not None
    assert (step.estimate.documents, step.estimate.collection) == (2 * PEOPLE, "compliance_pre_images")
    assert step.estimate.oplog_bytes
    assert SECRET not in "\n".join(lines(preview))
    assert people.count_documents({"email": SECRET}) == 1


REBUILT = '''
        """Rebuild, and go on with what it is then."""

        SCHEMA = {"bsonType": "object", "required": ["n"]}


        def up(ctx):
            """By a pipeline."""
            collation = {"collation": {"locale": "de"}}
            ctx.rebuild("people", pipeline=[{"$unset": "email"}], schema=SCHEMA, options=collation)
            ctx.create_index("people", "ix_name", [("name", 1)])
            ctx.set_schema("people", schema=SCHEMA)


        IRREVERSIBLE = "addresses are gone"
'''


def test_a_rebuilding_sends_what_its_plan_shows(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    people = empty.admin.app["people"]
    people.create_index("k", name="ux_k", unique=True)
    write_scripts(tmp_path / "rebuilt", {"v001_data_rebuilt.py": REBUILT})
    runner = deployment.with_settings(migrations=tmp_path / "rebuilt").runner()
    runner.up("000")
    with nothing_written(empty):
        preview = runner.preview()

    beside = run(deployment, runner, Wish(), preview)

    first, second, third = steps(preview)
    assert first.opaque == ""
    assert [command.name for command in first.commands] == [
        "drop", "create", "createIndexes", "insert", "collMod", "collMod", "collMod", "renameCollection",
        "renameCollection",
    ]  # fmt: skip
    insert = first.commands[3].body["documents"]
    assert (len(insert), insert[0] | {"_id": 0}) == (50, {"_id": 0, "n": "<int>", "k": "<int>", "name": "<str>"})
    assert first.estimate is not None
    assert (first.estimate.documents, first.estimate.batches, first.estimate.batch_docs) == (PEOPLE, 3, 50)
    assert first.estimate.oplog_bytes
    assert [command.name for command in second.commands] == ["collMod", "createIndexes"]
    assert third.commands == []  # it is what it would be by then
    assert {(next(iter(body)), body[next(iter(body))]) for body in beside} <= {("insert", "people_shadow")}
    assert "writes are refused for up to 5 s" in "\n".join(lines(preview))
    assert SECRET not in "\n".join(lines(preview))
    assert "ux_k" in people.index_information()


def test_the_plan_of_an_interrupted_rebuilding_goes_on_where_the_run_would(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    write_scripts(tmp_path / "rebuilt", {"v001_data_rebuilt.py": REBUILT})
    deployment = deployment.with_settings(migrations=tmp_path / "rebuilt")
    deployment.runner().up("000")

    def stop() -> bool:
        left = (empty.admin.compliance["migration_lease"].find_one({}) or {}).get("checkpoint") or {}
        return bool(left.get("place", {}).get("documents", 0))

    with pytest.raises(LeaseLost):
        deployment.runner(should_stop=stop, most_docs=50).up()
    runner = deployment.runner(most_docs=50)
    preview = runner.preview()

    first = steps(preview)[0]
    assert [command.name for command in first.commands][:2] == ["insert", "collMod"]
    assert len(first.commands[0].body["documents"]) == 50
    run(deployment, runner, Wish(), preview)


def test_a_plan_needs_no_right_to_write(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    deployment.runner().up("000")
    expected = describe(deployment.runner().preview())
    own = empty.admin.compliance
    reading = [{"role": "read", "db": database.name} for database in (empty.admin.app, own)]
    own.command("createUser", "reader", pwd="secret", roles=reading)
    uri = deployment.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    with open_client(uri, app_name="test") as client:
        address = f"{client.address[0]}:{client.address[1]}" if client.address else ""
    with open_client(f"mongodb://reader:secret@{address}/?authSource={own.name}", app_name="test") as client:
        found = describe(replace(deployment.runner(), databases=Databases(client, deployment.name)).preview())

    assert found["oplog"] is None
    assert expected["oplog"] is not None
    assert {**found, "oplog": 0} == {**expected, "oplog": 0}
    assert "cannot be read by this user" in "\n".join(lines(replace(deployment.runner().preview(), oplog=None)))


def test_estimates_are_near_what_happens_and_learn_the_rate(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    runner = deployment.runner()
    runner.up("001")
    first = estimates(runner.preview())
    fill = first["backfill people"]
    assert (fill.documents, fill.is_counted, fill.collection_documents) == (PEOPLE, True, PEOPLE)
    assert (fill.batch_docs, fill.batches, fill.scan) == (50, 3, "IXSCAN _id_")
    assert (fill.rate, fill.is_measured) == (ASSUMED_RATE, False)
    assert first["verify people"].scan == "COLLSCAN"
    oplog = empty.admin.client["local"]["oplog.rs"]
    last = oplog.find_one({}, {"ts": 1}, sort=[("$natural", -1)])
    assert last is not None

    runner.up("002")
    written = 0
    for entry in oplog.find({"ts": {"$gt": last["ts"]}, "o.applyOps.ns": f"{empty.name}.people"}):
        if any("seen" in str(one["o"]) for one in entry["o"]["applyOps"]):
            written += len(bson.encode(entry))

    assert fill.oplog_bytes is not None
    assert written / 2 < fill.oplog_bytes < written * 2
    second = estimates(runner.preview())["move documents of events into their buckets"]
    assert second.is_measured
    assert second.rate != ASSUMED_RATE


def estimates(preview: Preview) -> dict[str, Estimate]:
    return {step.what: step.estimate for step in steps(preview) if step.estimate}


def test_a_count_that_takes_too_long_is_estimated(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    runner = deployment.runner()
    runner.up("001")
    admin = empty.admin.client.admin
    data = {"failCommands": ["aggregate"], "errorCode": 50, "namespace": f"{empty.name}.people"}
    admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        found = estimates(runner.preview())["backfill people"]
    finally:
        admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    assert (found.documents, found.is_counted) == (PEOPLE, False)


def test_the_plan_of_an_interrupted_script_goes_on_where_the_run_would(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    deployment.runner().up("001")

    def stop() -> bool:
        left = (empty.admin.compliance["migration_lease"].find_one({}) or {}).get("checkpoint") or {}
        return left.get("step") == 2 and left["place"].get("documents", 0) > 0

    with pytest.raises(LeaseLost):
        deployment.runner(should_stop=stop).up("002")
    runner = deployment.runner()
    preview = runner.preview(Wish(target="002"))

    assert steps(preview)[0].what == "walk people"
    assert "backfill people" not in [step.what for step in steps(preview)]
    first = steps(preview)[0].commands[0]
    assert set(first.body["updates"][0]["q"]["$and"][0]["_id"]) == {
        "$gt",
        "$lte",
    }  # behind the last batch, up to the next
    run(deployment, runner, Wish(target="002"), preview)


def test_duplicates_that_an_earlier_step_may_mend_do_not_end_a_plan(empty: Deployment) -> None:
    empty.runner().up("000")
    empty.admin.app["people"].insert_many([{"_id": n, "k": 1, "a": [1], "b": [1]} for n in range(2)])
    mend = {"where": {"m": None}, "update": [{"$set": {"k": "$_id", "m": 1, "a": 1}}]}

    for mended in (False, True):
        lines: list[str] = []
        with dry(empty, lines=lines) as ctx:
            if mended:
                ctx.backfill("people", **mend)
                ctx.create_index("people", "ix", [("a", 1), ("b", 1)])
                ctx.create_unique("people", "ux", [("k", 1)])
                assert "documents of people share a key as they are: 0, 1" in lines
                assert "two fields of people.ix are arrays in documents as they are: 0, 1" in lines
            else:
                with pytest.raises(StepFailed, match="documents with the same k have the _id 0, 1"):
                    ctx.create_unique("people", "ux", [("k", 1)])
                with pytest.raises(StepFailed, match="two of its fields are arrays"):
                    ctx.create_index("people", "ix", [("a", 1), ("b", 1)])


def test_the_command_shows_a_plan_to_people_and_machines(empty: Deployment, tmp_path: Path) -> None:
    deployment = arrange(empty, tmp_path)
    deployment.runner().up("001")
    environ = deployment.environ(tmp_path) | {"COMPLIANCE_MIGRATIONS": str(tmp_path / "scripts")}
    runtime = quiet(load_settings(environ))

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(build_cli(), ["migrate", *arguments], obj=runtime, env={"COLUMNS": "200"})

    told = invoke("plan", "--to", "002")
    assert told.exit_code == 0, told.stderr
    assert told.stdout.splitlines()[0] == "v002_data_people: Everything about documents."
    assert told.stdout.splitlines()[-1] == "1 to apply"
    assert "first batch, in a transaction: {" in told.stdout
    as_json = json.loads(invoke("plan", "--only", "002", "--json").stdout)
    assert (as_json["verb"], as_json["revisions"]) == ("to apply", ["v002_data_people"])
    step = as_json["plan"]["scripts"][0]["steps"][0]
    assert (step["what"], step["line"], step["estimate"]["documents"]) == ("backfill people", 30, PEOPLE)
    assert step["commands"][0]["command"]["updates"][0]["multi"] is True
    dry_run = json.loads(invoke("up", "--dry-run", "--to", "002", "--json").stdout)
    assert [one["what"] for one in dry_run["plan"]["scripts"][0]["steps"]] == [
        one["what"] for one in as_json["plan"]["scripts"][0]["steps"]
    ]
    back = invoke("plan", "--down", "zero")
    assert '{"drop": "things", "maxTimeMS": {"$numberInt": "500"}, "writeConcern": {"w": "majority"}}' in back.stdout
    assert invoke("down", "zero", "--dry-run").stdout == back.stdout
    assert invoke("plan", "--down", "zero", "--to", "002").exit_code == 2
    deployment.runner().up()
    assert invoke("plan").stdout == "nothing to do\n"
