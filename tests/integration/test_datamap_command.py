"""``compliance datamap`` on a real database."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from migrated import NOON
from quiet import quiet
from typer.testing import CliRunner

from compliance.datamap.census import _sample, take_census
from compliance.errors import ConfigurationError
from compliance.health import CHECKS, Scope
from compliance.settings import load_settings
from worker.cli import build_cli

ADDRESS = "mara.secret@example.org"


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


def plant(deployment: Deployment) -> None:
    """One document that nobody declared anything of, and one that grew a field."""
    app = deployment.admin.app
    app["pets"].insert_one({"note": ADDRESS, "by": {ADDRESS: 1}})
    app["users"].insert_one(
        {"email": ADDRESS, "role": "x", "status": "x", "created_at": NOON, "shoe": 43, "subscription_type": "FREE"}
    )
    app["versioning"].insert_one(
        {"entity_type": "x", "entity_id": ObjectId(), "version": 1, "created_at": NOON, "description": f"by {ADDRESS}"}
    )


def test_the_census_names_what_the_map_does_not_say_and_never_a_value(deployment: Deployment, tmp_path: Path) -> None:
    plant(deployment)
    done = invoke(deployment, tmp_path, "census", "--json")
    found = {(one["collection"], one["path"], one["what"]) for one in json.loads(done.stdout)["findings"]}
    told = invoke(deployment, tmp_path, "census")

    assert found == {
        ("pets", "", "not in the map"),
        ("pets", "note", "email"),
        ("pets", "by{}", "email"),
        ("users", "shoe", "undeclared"),
        ("versioning", "description", "email"),
    }
    assert done.exit_code == told.exit_code == 3
    assert ADDRESS not in done.stdout + told.stdout
    assert "looked at 3 of 3 documents" in told.stdout


def test_what_a_baseline_knows_does_not_count(deployment: Deployment, tmp_path: Path) -> None:
    plant(deployment)
    baseline = tmp_path / "baseline.json"

    assert invoke(deployment, tmp_path, "census", "--write-baseline", str(baseline)).exit_code == 0
    assert invoke(deployment, tmp_path, "census", "--baseline", str(baseline)).exit_code == 0
    deployment.admin.app["tracks"].insert_one({"title": "x", "artist_id": ObjectId(), "created_at": NOON, "isrc": "x"})
    done = invoke(deployment, tmp_path, "census", "--baseline", str(baseline))
    assert done.exit_code == 3
    assert "tracks.isrc: undeclared, in 1 documents" in done.stdout
    assert "shoe" not in done.stdout
    assert ADDRESS not in baseline.read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"apiVersion": "datamap-census/v1", "known": [1]}'])
def test_a_wrong_baseline_is_refused(content: str, deployment: Deployment, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(content)
    done = invoke(deployment, tmp_path, "census", "--baseline", str(baseline))

    assert isinstance(done.exception, ConfigurationError)
    assert "is no baseline" in str(done.exception)


def test_a_sample_is_bounded_and_the_same_for_the_same_seed(deployment: Deployment) -> None:
    app = deployment.admin.app
    app["many"].insert_many({"n": n} for n in range(3000))
    app["named"].insert_many({"_id": f"n{n}", "n": n} for n in range(500))
    data_map = deployment.services().data_map

    def ids(name: str, seed: int) -> list[Any]:
        return [found["_id"] for found in _sample(app, name, 100, seed, is_series=False)]

    for name in ("many", "named"):
        assert len(ids(name, 1)) == len(set(ids(name, 1))) == 100
        assert ids(name, 1) == ids(name, 1)
    assert ids("many", 1)[0] == app["many"].find_one(sort=[("_id", 1)])["_id"]
    coverage = take_census(app, data_map, sample=100).coverage
    assert (coverage["many"].documents, coverage["many"].looked_at) == (3000, 100)


def test_every_night_a_check_looks(deployment: Deployment) -> None:
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, trust=services.trust)

    assert CHECKS["undeclared_data"](scope).problems == ()
    plant(deployment)
    found = CHECKS["undeclared_data"](scope)
    assert "users.shoe: undeclared, in 1 documents of a sample" in found.problems
    assert found.looked_at == 3
    assert CHECKS["undeclared_data"](replace(scope, subject_id=ObjectId())).problems == ()
