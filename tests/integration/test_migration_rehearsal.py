"""A rehearsal tries pending scripts on a copy, says what a way back does not restore, and leaves nothing."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from migrated import NAMES, hashes, names, snapshot, user, write_scripts
from quiet import quiet
from typer.testing import CliRunner
from waiting import wait_until

from compliance.errors import ConfigurationError, ExitCode, InvalidPayload, LockHeld
from compliance.mongo import Databases
from compliance.settings import load_settings
from migrations.admission import Admission
from migrations.rehearsal import Outcome, rehearse, sweep
from migrations.rehearsal.clone import clone_of, copy, drop
from migrations.rehearsal.fingerprint import differences, fingerprints
from migrations.runner import Runner
from worker.cli import build_cli

SECRET = "mara@example.org"


def script(up: str, down: str = "pass") -> str:
    return f'''
        """Change things."""


        def up(ctx):
            """Up."""
            {up}


        def down(ctx):
            """Down."""
            {down}
    '''


ADD = 'ctx.backfill("things", where={"b": {"$exists": False}}, update={"$set": {"b": 1, "c": 1}})'
TAKE = 'ctx.backfill("things", where={"b": {"$exists": True}}, update={"$unset": {"b": "", "c": ""}})'
FORGET = 'ctx.backfill("things", where={"b": {"$exists": True}}, update={"$unset": {"b": ""}})'
INDEX, NO_INDEX = 'ctx.create_index("others", "ix_n", [("n", 1)])', 'ctx.drop_index("others", "ix_n")'


def arranged(empty: Deployment, folder: Path, scripts: dict[str, str], documents: int = 30, **changes: Any) -> Runner:
    """A runner over *scripts*, and documents for them."""
    empty.admin.app["things"].insert_many([{"_id": ObjectId(), "a": n, "who": SECRET} for n in range(documents)])
    empty.admin.app["others"].insert_many([{"_id": n, "n": n} for n in range(3)])
    written = write_scripts(folder / "scripts", scripts)
    runner = empty.with_settings(migrations=written).runner(**changes)
    runner.up("000")
    return runner


def clones(deployment: Deployment) -> list[str]:
    return [name for name in deployment.admin.client.list_database_names() if name.startswith(f"{deployment.name}_re")]


def whats(outcome: Outcome) -> list[tuple[str, bool, dict[str, str]]]:
    return [(one.name, one.is_undone, dict(one.differs_in)) for one in outcome.scripts]


def test_scripts_that_can_be_undone_pass_and_nothing_but_an_entry_is_left(empty: Deployment, tmp_path: Path) -> None:
    scripts = {"v001_data_fill.py": script(ADD, TAKE), "v002_pre_index.py": script(INDEX, NO_INDEX)}
    runner = arranged(empty, tmp_path, scripts)
    before = [snapshot(empty.admin.app), hashes(empty.admin)[0]]

    outcome = rehearse(runner, documents=20)

    assert outcome.is_good, outcome
    assert whats(outcome) == [("v001_data_fill", True, {}), ("v002_pre_index", True, {})]
    assert (outcome.copied["things"].documents, outcome.copied["things"].of) == (20, 30)
    assert (outcome.copied["others"].documents, outcome.copied["others"].of) == (3, 3)
    (fill,) = outcome.scripts[0].timings
    assert fill.what == "backfill things"
    assert 0 < fill.seconds < fill.whole_seconds == pytest.approx(fill.seconds * 1.5)
    assert [snapshot(empty.admin.app), hashes(empty.admin)[0]] == before
    assert clones(empty) == []
    assert names(runner.pending()) == ["v001_data_fill", "v002_pre_index"]
    (entry,) = empty.entries(action="migration.rehearsed")
    assert entry["details"] == {
        "documents": 20,
        "copied": 23,
        "scripts": ["v001_data_fill", "v002_pre_index"],
        "result": "good",
        "differs_in": [],
    }
    assert empty.entries(action="migration.started", entity_id="v001_data_fill") == []


def test_a_way_back_that_forgets_a_field_is_named_with_its_collection(empty: Deployment, tmp_path: Path) -> None:
    scripts = {"v001_data_fill.py": script(ADD, FORGET), "v002_pre_index.py": script(INDEX)}
    runner = arranged(empty, tmp_path, scripts)

    outcome = rehearse(runner, documents=1000)

    assert not outcome.is_good
    assert whats(outcome) == [
        ("v001_data_fill", True, {"things": "other documents (30 before, 30 after)"}),
        ("v002_pre_index", True, {"others": "other indexes"}),
    ]
    assert outcome.differs_in == ("others", "things")
    assert clones(empty) == []
    (entry,) = empty.entries(action="migration.rehearsed")
    assert (entry["details"]["result"], entry["details"]["differs_in"]) == ("not as it should be", ["others", "things"])


def test_a_script_without_a_way_back_is_said_to_be_so_and_those_behind_it_are_undone(
    empty: Deployment, tmp_path: Path
) -> None:
    forever = '''
        """Stay."""

        IRREVERSIBLE = "it is better so"


        def up(ctx):
            """Up."""
            ctx.create_index("others", "ix_m", [("m", 1)])
    '''
    scripts = {"v001_pre_stay.py": forever, "v002_data_fill.py": script(ADD, TAKE)}

    outcome = rehearse(arranged(empty, tmp_path, scripts), documents=1000)

    assert outcome.is_good
    assert whats(outcome) == [("v001_pre_stay", False, {}), ("v002_data_fill", True, {})]
    assert outcome.scripts[0].irreversible == "it is better so"


def test_a_script_that_fails_is_told_and_what_went_before_it_is_undone(empty: Deployment, tmp_path: Path) -> None:
    scripts = {
        "v001_data_fill.py": script(ADD, TAKE),
        "v002_data_look.py": script('ctx.verify("things", none={"b": 1})'),
    }

    outcome = rehearse(arranged(empty, tmp_path, scripts), documents=1000)

    assert not outcome.is_good
    assert outcome.stopped.startswith("up: 30 documents of things are not as they should be")
    assert whats(outcome) == [("v001_data_fill", True, {})]
    (entry,) = empty.entries(action="migration.rehearsed")
    assert entry["details"]["result"] == "stopped"


def test_nothing_is_undone_behind_a_script_that_failed_and_cannot_be_undone(empty: Deployment, tmp_path: Path) -> None:
    half = '''
        """Stay half."""

        IRREVERSIBLE = "it is better so"


        def up(ctx):
            """Up."""
            ctx.create_index("others", "ix_m", [("m", 1)])
            ctx.verify("things", none={"b": 1})
    '''
    scripts = {"v001_data_fill.py": script(ADD, TAKE), "v002_pre_stay.py": half}

    outcome = rehearse(arranged(empty, tmp_path, scripts), documents=1000)

    assert outcome.stopped.startswith("up: 30 documents of things")
    assert whats(outcome) == [("v001_data_fill", False, {})]


def test_a_gate_for_a_person_is_open_on_the_copy(empty: Deployment, tmp_path: Path) -> None:
    scripts = {"v001_post_wait.py": script('ctx.gate("release", approval=True, wait_seconds=0)')}

    outcome = rehearse(arranged(empty, tmp_path, scripts), documents=1000)

    assert outcome.is_good, outcome.stopped
    assert empty.admin.compliance["migration_approvals"].count_documents({}) == 0


def test_the_reference_scripts_are_rehearsed_with_what_is_there(empty: Deployment) -> None:
    runner = empty.runner()
    runner.up("004_pre")
    empty.admin.app["users"].insert_many([user(email=f"{n}@example.org") for n in range(5)])

    outcome = rehearse(runner, documents=3)

    assert [one.name for one in outcome.scripts] == NAMES[5:]
    assert (outcome.stopped, outcome.problems) == ("", ())
    differing = {one.name: dict(one.differs_in) for one in outcome.scripts if one.differs_in}
    assert set(differing) == {"v004_data_subscription_type"}  # it says so: values are left


def test_a_copy_holds_every_kind_of_collection_and_whole_documents(empty: Deployment) -> None:
    runner, app = empty.runner(), empty.admin.app
    runner.up()
    app.create_collection("recent", capped=True, size=4096)
    app.create_collection("seen", viewOn="tracks", pipeline=[{"$match": {"a": 1}}])
    app.create_collection("aa_view", viewOn="seen", pipeline=[])
    app.create_collection("readings", timeseries={"timeField": "at", "metaField": "m"})
    app["readings"].insert_one({"at": datetime(2026, 5, 1, tzinfo=UTC), "m": 1})
    app["recent"].insert_one({"n": 1})
    app["dotted"].insert_one({"_id": {"a.b": 1}, "$n": float("nan"), "a.b": [1, {"c": None}]})
    app.command("collMod", "tracks", index={"name": "ix_track_artist_id", "hidden": True})
    runner_databases = runner.databases
    clone = clone_of(runner_databases)
    try:
        copied = copy(runner_databases, clone, documents=10)
        admin = Databases(empty.admin.client, clone.name)

        assert sorted(admin.app.list_collection_names()) == sorted(app.list_collection_names())
        hidden = admin.app["tracks"].index_information()["ix_track_artist_id"]
        assert hidden["hidden"]
        assert differences(fingerprints(app), fingerprints(admin.app)) == {}
        assert copied["readings"].documents == 1
        assert admin.compliance["migration_history"].count_documents({}) > 0
    finally:
        drop(clone)
    assert clones(empty) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"$set": {"b": 2}}, {"things": "other documents (2 before, 2 after)"}),
        ([{"$replaceWith": {"c": "$c", "b": "$b", "_id": "$_id"}}], {}),
        ({"$set": {"c": {"y": 1, "x": 1}}}, {"things": "other documents (2 before, 2 after)"}),
    ],
)
def test_the_order_of_fields_does_not_count_and_everything_else_does(
    empty: Deployment, change: Any, found: dict[str, str]
) -> None:
    app = empty.admin.app
    app["things"].insert_many([{"_id": n, "b": n, "c": {"x": 1, "y": 1}} for n in range(2)])
    before = fingerprints(app)

    app["things"].update_one({"_id": 1}, change)

    assert differences(before, fingerprints(app)) == found
    app["things"].delete_many({})
    assert differences(before, fingerprints(app)) == {"things": "other documents (2 before, 0 after)"}
    app["more"].insert_one({})
    app["things"].drop()
    assert differences(before, fingerprints(app)) == {"more": "was not there before", "things": "is gone"}


def test_a_killed_rehearsal_leaves_a_copy_that_the_next_one_or_the_sweep_removes(
    empty: Deployment, tmp_path: Path
) -> None:
    scripts = {"v001_post_wait.py": script('ctx.gate("never", until=lambda database: False, wait_seconds=60)')}
    runner = arranged(empty, tmp_path, scripts)
    environ = empty.environ(tmp_path) | {
        "COMPLIANCE_MIGRATIONS": str(tmp_path / "scripts"),
        "COMPLIANCE_LEASE_SECONDS": "1",
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "worker", "migrate", "rehearse"]
    with subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until(lambda: len(clones(empty)) == 3, timeout=60, what="the copy is there")
        databases = runner.databases
        assert not sweep(databases, clock=runner.clock, length=timedelta(seconds=1))
        with pytest.raises(LockHeld, match="a rehearsal is made by"):
            rehearse(runner, documents=5)
        process.kill()
        process.communicate()
    assert len(clones(empty)) == 3

    def is_swept() -> bool:
        empty.run("jobs.retention", {}, request_id=f"r-{ObjectId()}")
        return clones(empty) == []

    wait_until(is_swept, timeout=30, what="it is swept")

    assert not sweep(databases, clock=runner.clock, length=timedelta(seconds=1))
    empty.admin.client[f"{empty.name}_rehearsal"]["left"].insert_one({"who": SECRET})
    write_scripts(tmp_path / "scripts", {"v001_post_wait.py": script(INDEX, NO_INDEX)})
    again = empty.with_settings(migrations=tmp_path / "scripts").runner()
    assert rehearse(again, documents=5).is_good
    assert clones(empty) == []


def test_production_is_asked_for_and_a_rehearsal_needs_documents(empty: Deployment, tmp_path: Path) -> None:
    runner = arranged(empty, tmp_path, {"v001_pre_index.py": script(INDEX, NO_INDEX)})
    strict = empty.with_settings(migrations=tmp_path / "scripts").runner(
        admission=Admission(is_strict=True, off=runner.admission.off)
    )

    with pytest.raises(InvalidPayload, match="say --in-production"):
        rehearse(strict, documents=5)
    with pytest.raises(InvalidPayload, match="at least one document"):
        rehearse(runner, documents=0)
    with pytest.raises(ConfigurationError, match="at most 42 characters"):
        clone_of(Databases(empty.admin.client, "x" * 43))
    assert clones(empty) == []
    assert empty.entries(action="migration.rehearsed") == []


def test_the_command_shows_what_differs_and_exits_with_3(empty: Deployment, tmp_path: Path) -> None:
    arranged(empty, tmp_path, {"v001_data_fill.py": script(ADD, FORGET)})
    environ = empty.environ(tmp_path) | {"COMPLIANCE_MIGRATIONS": str(tmp_path / "scripts")}
    runtime = quiet(load_settings(environ))

    def invoke(*arguments: str) -> Any:
        command = ["migrate", "rehearse", *arguments]
        return CliRunner().invoke(build_cli(), command, obj=runtime, env={"COLUMNS": "200"})

    told = invoke("--documents", "10")
    assert told.exit_code == ExitCode.NOT_AS_IT_SHOULD_BE
    assert "v001_data_fill does not restore things: other documents (10 before, 10 after)\n" in told.stdout
    assert told.stdout.endswith("1 applied, 1 undone and applied again; the copy is gone\n")
    assert SECRET not in told.stdout + told.stderr
    as_json = json.loads(invoke("--json").stdout)
    assert (as_json["is_good"], as_json["differs_in"]) == (False, ["things"])
    assert as_json["copied"]["things"] == {"documents": 30, "of": 30}
    assert as_json["scripts"][0]["steps"][0]["what"] == "backfill things"
