"""``compliance datamap`` on a real database."""

import json
from pathlib import Path
from typing import Any

from bson import ObjectId
from deployment import Deployment
from migrated import NOON
from quiet import quiet
from typer.testing import CliRunner

from compliance.settings import load_settings
from worker.cli import build_cli


def invoke(deployment: Deployment, tmp_path: Path, *arguments: str) -> Any:
    runtime = quiet(load_settings(deployment.environ(tmp_path)))
    return CliRunner().invoke(build_cli(), ["datamap", *arguments], obj=runtime)


def test_the_reference_database_is_without_errors_and_the_cost_of_missing_indexes_is_told(
    deployment: Deployment, tmp_path: Path
) -> None:
    deployment.admin.app["geo_events"].insert_many(
        {"location": {"type": "Point", "coordinates": [0, 0]}, "event_type": "x", "created_at": NOON} for _ in range(3)
    )
    done = invoke(deployment, tmp_path, "lint", "--json")
    found = json.loads(done.stdout)["findings"]

    assert done.exit_code == 0
    assert {(one["code"], one["severity"], one["place"]) for one in found} == {
        ("DM103", "warning", "collections.geo_events.rules.0.locate")
    }
    assert "reads about 3 documents" in found[0]["why"]
    assert invoke(deployment, tmp_path, "lint", "--strict").exit_code == 3


def test_what_the_database_holds_is_compared_with_the_map(deployment: Deployment, tmp_path: Path) -> None:
    app = deployment.admin.app
    app.command("collMod", "analytics", validationLevel="off")
    app.command("collMod", "tracks", validationLevel="off")
    app["analytics"].insert_many([{"user_id": ObjectId()}, {"user_id": str(ObjectId())}])
    app["tracks"].create_index("artist_id", unique=True, name="one_each")
    app.create_collection(
        "seen", viewOn="tracks", pipeline=[{"$lookup": {"from": "secrets", "as": "s", "pipeline": []}}]
    )
    app.create_collection("readings", timeseries={"timeField": "at"})
    done = invoke(deployment, tmp_path, "lint", "--json")
    found = {(one["code"], one["place"]) for one in json.loads(done.stdout)["findings"]}

    assert done.exit_code == 3
    assert {
        ("DM104", "collections.analytics.rules.0.locate"),
        ("DM004", "collections.tracks.rules.0.on_erase"),
        ("DM109", "collections.secrets"),
    } <= found
    told = invoke(deployment, tmp_path, "lint").stdout
    assert "stored: [objectId, string]" in told
    assert "one_each is unique" in told
