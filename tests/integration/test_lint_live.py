"""`lint --live` compares scripts with what the database holds, as the migrator."""

from datetime import UTC, datetime

from deployment import Deployment

from compliance.roles import Role
from migrations.governance import Catalogue, lint, parse_script
from migrations.governance.catalogue import Index
from migrations.governance.sample import Sample, data, post, pre
from migrations.linting import read_catalogue

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
