"""`lint --live` compares scripts with what the database holds, as the migrator."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployment import Deployment
from migrated import write_scripts
from quiet import quiet
from typer.testing import CliRunner

from compliance.roles import Role
from compliance.settings import load_settings
from migrations.governance import Catalogue, lint, parse_script
from migrations.governance.catalogue import Index
from migrations.governance.sample import Sample, data, post, pre
from migrations.linting import read_catalogue, sightings
from worker.cli import build_cli

HIDE = 'ctx.databases.app.command("collMod", "tracks", index={"name": "ix_track_album_id", "hidden": True})'
DROP = 'ctx.drop_index("tracks", "ix_track_album_id")'
CREATE = 'ctx.create_index("tracks", "ix_track_album_id", [("album_id", 1)])'


def look(sample: Sample, catalogue: Catalogue) -> list[str]:
    scripts = [parse_script(each.file, each.source) for each in (*sample.before, sample)]
    return [found.rule for found in lint(scripts, catalogue=catalogue, files={sample.file})]


def test_the_catalogue_is_read_as_the_migrator(deployment: Deployment) -> None:
    app = deployment.admin.app
    app.create_collection("readings", timeseries={"timeField": "at"})
    app.create_collection("recent", capped=True, size=4096)
    app.create_collection("seen", viewOn="tracks", pipeline=[])
    app["readings"].insert_one({"at": datetime(2026, 5, 1, tzinfo=UTC)})
    app["visits"].insert_many([{"n": n} for n in range(3)])
    list(app["tracks"].find({"album_id": 1}))
    app.command("collMod", "tracks", index={"name": "ix_track_artist_id", "hidden": True})

    found = read_catalogue(deployment.services(Role.MIGRATOR).databases.app).collections

    kinds = {name: one.kind for name, one in found.items()}
    assert kinds["readings"] == "timeseries"
    assert (kinds["recent"], kinds["seen"], kinds["users"]) == ("capped", "view", "collection")
    assert not any(name.startswith("system.") for name in kinds)
    assert found["visits"].documents == 3
    indexes = found["tracks"].indexes
    assert indexes["ix_track_album_id"] == Index(keys=(("album_id", 1),), uses=1)
    assert indexes["ix_track_artist_id"].is_hidden
    assert found["users"].indexes["ix_user_email"].is_unique


def test_rules_speak_of_what_is_there(deployment: Deployment) -> None:
    app = deployment.admin.app
    app["visits"].insert_one({"n": 1})
    app.create_collection("readings", timeseries={"timeField": "at"})
    list(app["tracks"].find({"album_id": 1}))
    catalogue = read_catalogue(deployment.services(Role.MIGRATOR).databases.app)
    fill = 'ctx.backfill("NAME", where={"a": None}, update={"$set": {"a": 1}})'
    freeze = post('ctx.set_schema("visits", schema={"not": {}}, level="moderate")', number=9)

    assert look(data(fill.replace("NAME", "trakcs")), catalogue) == ["MX090"]
    assert look(data(fill.replace("NAME", "tracks")), catalogue) == []
    assert look(data(fill.replace("NAME", "readings")), catalogue) == ["MX096"]
    drop = post('ctx.drop_collection("visits")', 'ctx.create_collection("visits", schema={})')
    assert look(drop.after(freeze), catalogue) == ["MX091"]
    assert look(post(DROP, CREATE).after(post(HIDE, number=9)), catalogue) == ["MX094"]
    named_otherwise = CREATE.replace("ix_track_album_id", "ix_album")
    assert look(pre(named_otherwise, DROP.replace("ix_track_album_id", "ix_album")), catalogue) == ["MX092"]


SEEN = {
    "v001_post_all.py": '''
        """What a dry run sees."""


        def up(ctx):
            """Two wrong ones, and one that an earlier step mends."""
            ctx.set_schema("things", schema={"required": ["a"]}, level="strict")
            ctx.create_index("things", "ttl", [("at", 1)], options={"expireAfterSeconds": 60})
            ctx.backfill("others", where={"a": None}, update={"$set": {"a": 1}})
            ctx.set_schema("others", schema={"required": ["a"]}, level="strict")


        def down(ctx):
            """Nothing."""
    '''
}


def test_rules_speak_of_what_a_dry_run_sees(empty: Deployment, tmp_path: Path) -> None:
    old = {"at": datetime(2020, 5, 1, tzinfo=UTC)}
    for name in ("things", "others"):
        empty.admin.app[name].insert_many([{"n": n, **old} for n in range(3)])
    runner = empty.with_settings(migrations=write_scripts(tmp_path / "scripts", SEEN)).runner()

    steps = sightings(runner.preview())

    seen = {one.line: one for one in steps["v001_post_all.py"]}
    assert {line: (one.violators, one.expiring, one.builds) for line, one in seen.items()} == {
        6: (3, 0, False),
        7: (0, 3, True),
        8: (0, 0, False),
        9: (0, 0, False),
    }
    assert seen[8].collection == "others"
    assert 0 < seen[8].oplog_share < 0.01
    catalogue = read_catalogue(runner.databases.app, steps=steps)
    scripts = [parse_script(path.name, path.read_bytes()) for path in (tmp_path / "scripts").iterdir()]
    found = {(one.rule, one.line) for one in lint(scripts, catalogue=catalogue) if one.rule in ("MX098", "MX099")}
    assert found == {("MX098", 6), ("MX099", 7)}


def test_the_command_makes_a_dry_run_and_says_where_it_cannot(empty: Deployment, tmp_path: Path) -> None:
    empty.admin.app["things"].insert_many([{"n": n} for n in range(3)])
    empty.admin.app["others"].insert_one({"n": 1})
    folder = write_scripts(tmp_path / "scripts", SEEN)
    runtime = quiet(load_settings(empty.environ(tmp_path) | {"COMPLIANCE_MIGRATIONS": str(folder)}))

    def invoke() -> Any:
        return CliRunner().invoke(build_cli(), ["migrate", "lint", "--live", "--json"], obj=runtime)

    told = json.loads(invoke().stdout)
    assert ("MX098", 6) in [(one["rule"], one["line"]) for one in told["findings"]]
    wrong = SEEN["v001_post_all.py"].replace('set_schema("things"', 'set_schema("nowhere"')
    write_scripts(folder, {"v002_pre_wrong.py": wrong})
    ends = invoke()
    assert "the dry run ends early, and no rule is asked about it: collection nowhere does not" in ends.stderr
    assert "MX098" not in [one["rule"] for one in json.loads(ends.stdout)["findings"]]
