"""Migrations on a real replica set, with the rights of the migrator; each defect of the old scripts is a test here."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from deployment import Deployment
from faults import Died, mortal
from pymongo.errors import WriteError
from waiting import wait_until

from compliance.errors import (
    ConfigurationError,
    ExitCode,
    LockHeld,
    MigrationError,
    RevisionEdited,
    StepFailed,
    UnknownName,
)
from compliance.mongo import Databases, Document
from compliance.roles import Role
from compliance.settings import MIGRATIONS
from migrations.discovery import discover
from migrations.runner import Runner
from worker.services import connect
from worker.up import provision_stack

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
NAMES = [revision.name for revision in discover(MIGRATIONS)]

STRING, DATE, ID, OBJECT, ARRAY, BOOL, INT = "string", "date", "objectId", "object", "array", "bool", "int"
COLLECTIONS: dict[str, tuple[set[str], dict[str, str]]] = {
    "users": (
        {"email", "role", "status", "created_at", "subscription_type"},
        {
            "email": STRING,
            "role": STRING,
            "status": STRING,
            "preferences": OBJECT,
            "created_at": DATE,
            "updated_at": DATE,
        },
    ),
    "artists": (
        {"user_id", "display_name", "created_at"},
        {
            "user_id": ID,
            "display_name": STRING,
            "genres": ARRAY,
            "bio": STRING,
            "created_at": DATE,
            "updated_at": DATE,
        },
    ),
    "tracks": (
        {"title", "artist_id", "created_at"},
        {
            "title": STRING,
            "artist_id": ID,
            "album_id": ID,
            "duration_ms": INT,
            "audio_features": OBJECT,
            "created_at": DATE,
            "updated_at": DATE,
        },
    ),
    "playlists": (
        {"name", "owner_id", "created_at"},
        {
            "name": STRING,
            "owner_id": ID,
            "track_ids": ARRAY,
            "collaborative": BOOL,
            "created_at": DATE,
            "updated_at": DATE,
        },
    ),
    "analytics": (
        {"user_id", "event_type", "timestamp"},
        {"user_id": ID, "event_type": STRING, "payload": OBJECT, "timestamp": DATE},
    ),
    "ai_content": (
        {"type", "payload", "created_at"},
        {"type": STRING, "payload": OBJECT, "status": STRING, "created_at": DATE, "updated_at": DATE},
    ),
    "security_events": (
        {"event_type", "detected_at"},
        {"event_type": STRING, "detected_at": DATE, "details": OBJECT, "resolved": BOOL},
    ),
    "consent": ({"user_id", "type", "granted", "timestamp"}, {"user_id": ID, "granted": BOOL, "timestamp": DATE}),
    "geo_events": (
        {"location", "event_type", "created_at"},
        {"location": OBJECT, "event_type": STRING, "details": OBJECT, "created_at": DATE},
    ),
    "multilingual_content": (
        {"title", "lang", "created_at"},
        {
            "title": STRING,
            "lang": STRING,
            "content": STRING,
            "tags": ARRAY,
            "created_at": DATE,
            "updated_at": DATE,
        },
    ),
    "versioning": (
        {"entity_type", "entity_id", "version", "created_at"},
        {
            "entity_type": STRING,
            "entity_id": ID,
            "version": INT,
            "description": STRING,
            "checksum": STRING,
            "created_at": DATE,
        },
    ),
}
INDEXES: dict[str, tuple[str, list[tuple[str, int | str]], bool]] = {
    "ix_user_email": ("users", [("email", 1)], True),
    "ix_artist_user_id": ("artists", [("user_id", 1)], False),
    "ix_track_artist_id": ("tracks", [("artist_id", 1)], False),
    "ix_track_album_id": ("tracks", [("album_id", 1)], False),
    "ix_playlist_owner_id": ("playlists", [("owner_id", 1)], False),
    "ix_analytics_user_event": ("analytics", [("user_id", 1), ("event_type", 1)], False),
    "ix_ai_content_type_status": ("ai_content", [("type", 1), ("status", 1)], False),
    "ix_security_event_type": ("security_events", [("event_type", 1), ("detected_at", 1)], False),
    "ix_consent_user_type": ("consent", [("user_id", 1), ("type", 1)], True),
    "ix_geo_location": ("geo_events", [("location", "2dsphere")], False),
    "ix_multilingual_lang_title": ("multilingual_content", [("lang", 1), ("title", 1)], False),
    "ix_versioning_entity_version": ("versioning", [("entity_type", 1), ("entity_id", 1), ("version", -1)], False),
}
SUBSCRIPTIONS = ["FREE", "PREMIUM", "FAMILY", "STUDENT", "TRIAL"]


def snapshot(database: Any) -> dict[str, Any]:
    """The schema: every collection with its options, every index with its own."""
    found = {info["name"]: info for info in database.list_collections()}
    return {
        name: {
            "type": info["type"],
            "options": info["options"],
            "indexes": sorted(
                (dict(index) for index in database[name].list_indexes()), key=lambda index: index["name"]
            ),
        }
        for name, info in found.items()
    }


def schemas(admin: Databases) -> list[dict[str, Any]]:
    return [snapshot(admin.app), snapshot(admin.audit), snapshot(admin.compliance)]


def hashes(admin: Databases) -> list[dict[str, str]]:
    databases = (admin.app, admin.audit, admin.compliance)
    return [database.command("dbHash")["collections"] for database in databases]


def user(**changes: Any) -> Document:
    return {"email": "mara@example.org", "role": "listener", "status": "ACTIVE", "created_at": NOON} | changes


def names(done: Iterable[Any]) -> list[str]:
    return [revision.name for revision in done]


def test_every_collection_and_validator_of_the_reference_domain_is_there(deployment: Deployment) -> None:
    found = snapshot(deployment.admin.app)

    assert set(found) == set(COLLECTIONS)
    for name, (required, properties) in COLLECTIONS.items():
        schema = found[name]["options"]["validator"]["$jsonSchema"]
        assert set(schema["required"]) == required, name
        assert {key: schema["properties"][key]["bsonType"] for key in properties} == properties, name
    users = found["users"]["options"]
    assert users["validator"]["$jsonSchema"]["properties"]["subscription_type"] == {"enum": SUBSCRIPTIONS}
    assert users["validationLevel"] == "strict"
    assert users.get("validationAction", "error") == "error"


def test_every_index_of_the_reference_domain_is_there_and_no_other(deployment: Deployment) -> None:
    database = deployment.admin.app
    found = {
        name: (collection, index["key"], index.get("unique", False))
        for collection in database.list_collection_names()
        for name, index in database[collection].index_information().items()
        if name != "_id_"
    }

    assert found == INDEXES


def test_the_audit_log_is_there_before_the_first_migration(empty: Deployment) -> None:
    log = snapshot(empty.admin.audit)["audit_log"]
    assert {index["name"] for index in log["indexes"]} == {"_id_", "ix_audit_entity", "ix_audit_request"}
    assert next(dict(index["key"]) for index in log["indexes"] if index["name"] == "ix_audit_entity") == {
        "entity_type": 1,
        "entity_id": 1,
    }

    empty.migrate()

    started = empty.entries(action="migration.started")
    assert [entry["entity_id"] for entry in started] == NAMES
    assert snapshot(empty.admin.audit)["audit_log"] == log


def test_the_queries_of_the_reference_domain_answer(deployment: Deployment) -> None:
    database = deployment.admin.app
    point = {"type": "Point", "coordinates": [13.4, 52.5]}
    database["geo_events"].insert_one({"location": point, "event_type": "play", "created_at": NOON})
    database["multilingual_content"].insert_one({"title": "Hello", "lang": "en", "created_at": NOON})
    near = {"$near": {"$geometry": point, "$maxDistance": 10000}}

    assert database["geo_events"].find_one({"location": near}, {"_id": 0, "event_type": 1}) == {"event_type": "play"}
    assert database["multilingual_content"].count_documents({"lang": "en"}) == 1
    assert deployment.entries(entity_type="migration", entity_id=NAMES[0])


def test_a_second_run_does_nothing(deployment: Deployment) -> None:
    admin = deployment.admin
    before = hashes(admin)

    assert deployment.runner().up() == ()
    assert hashes(admin) == before


def test_every_step_looks_at_what_is_there_even_when_the_history_is_lost(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["users"].insert_one(user(subscription_type="PREMIUM"))
    before, documents = schemas(admin), list(admin.app["users"].find())
    admin.compliance["migration_history"].delete_many({})
    admin.compliance["declared_schema"].delete_many({})

    assert names(deployment.runner().up()) == NAMES
    assert schemas(admin) == before
    assert list(admin.app["users"].find()) == documents


@pytest.mark.parametrize(
    "change",
    [
        {"validator": {}},
        {"validationLevel": "off"},
        {"validationAction": "warn"},
        {"validator": {"$jsonSchema": {"bsonType": "object"}}},
    ],
    ids=lambda change: " ".join(f"{key} {value}" for key, value in change.items()),
)
def test_a_validator_that_somebody_loosened_is_put_right(deployment: Deployment, change: Document) -> None:
    admin = deployment.admin
    before = schemas(admin)
    admin.app.command({"collMod": "analytics", **change})
    admin.compliance["migration_history"].delete_many({"revision": "v001_pre_core_collections"})
    admin.compliance["migration_history"].delete_many({"revision": {"$gt": "v001_pre_core_collections"}})

    deployment.migrate()

    assert schemas(admin) == before


def test_history_and_audit_log_tell_of_each_script(deployment: Deployment) -> None:
    events = [(event["revision"], event["event"]) for event in deployment.admin.compliance["migration_history"].find()]

    assert events == [(name, event) for name in NAMES for event in ("started", "applied")]
    for name in NAMES:
        entries = deployment.entries(entity_type="migration", entity_id=name)
        assert {"migration.started", "migration.applied"} <= {entry["action"] for entry in entries}
        assert {entry["performed_by"] for entry in entries} == {"test"}
    for name in ("v001_pre_core_collections", "v002_pre_core_indexes", "v006_pre_advanced_indexes"):
        steps = deployment.entries(entity_id=name, action="migration.step")
        assert len(steps) == {"v001": 5, "v002": 6, "v006": 6}[name[:4]]


@pytest.mark.parametrize("target", [None, "002"])
def test_a_dry_run_shows_everything_and_writes_nothing(empty: Deployment, target: str | None) -> None:
    admin = empty.admin
    if target:
        empty.runner().up(target)
    admin.app["users"].insert_one({"email": "mara@example.org"}, bypass_document_validation=True)
    admin.app["artists"].insert_one({"genres": ["Rock"]}, bypass_document_validation=True)
    before, schema = hashes(admin), schemas(admin)
    lines: list[str] = []

    shown = empty.runner(report=lines.append).up(dry_run=True)

    assert names(shown) == (NAMES[3:] if target else NAMES)
    text = "\n".join(lines)
    assert "create collection versioning with a validator" in text
    assert "create unique index consent.ix_consent_user_type" in text
    assert "backfill 1 documents of users" in text
    assert "transform 1 documents of artists" in text
    assert ("create unique index users.ix_user_email" in text) == (target is None)
    assert hashes(admin) == before
    assert schemas(admin) == schema
    assert "mara" not in text


def test_a_dry_run_on_the_way_down_writes_nothing(deployment: Deployment) -> None:
    admin = deployment.admin
    before, schema = hashes(admin), schemas(admin)
    lines: list[str] = []

    shown = deployment.runner(report=lines.append).down("003", dry_run=True)

    assert names(shown) == NAMES[:3:-1]
    assert any("drop collection consent" in line for line in lines)
    assert hashes(admin) == before
    assert schemas(admin) == schema


def test_down_and_up_again_restores_every_schema_on_the_way(empty: Deployment) -> None:
    admin, runner = empty.admin, empty.runner()
    targets = ("000", "001", "002", "003", "004_pre", "004_data", "004_post", "005", "006")
    on_the_way_up: dict[str, Any] = {}
    for target in targets:
        assert len(runner.up(target)) == 1
        on_the_way_up[target] = schemas(admin)

    for target in reversed(targets[:-1]):
        assert len(runner.down(target)) == 1
        assert schemas(admin) == on_the_way_up[target]

    assert names(runner.up()) == NAMES[1:]
    assert schemas(admin) == on_the_way_up["006"]
    assert len(empty.entries(action="migration.reverted")) == len(NAMES) - 1


def test_several_revisions_go_down_at_once_and_come_back(deployment: Deployment) -> None:
    admin = deployment.admin
    before = schemas(admin)

    assert names(deployment.runner().down("003")) == NAMES[:3:-1]
    assert set(snapshot(admin.app)) == {"users", "artists", "tracks", "playlists", "analytics"}
    assert names(deployment.runner().down("003")) == []

    deployment.migrate()
    assert schemas(admin) == before


def test_down_to_zero_leaves_the_foundation_and_up_restores_the_rest(deployment: Deployment) -> None:
    admin = deployment.admin
    before = schemas(admin)

    deployment.runner().down("zero")
    left = deployment.runner().history.applied()
    without = schemas(admin)
    deployment.runner().up()

    assert list(left) == ["v000_pre_foundation"]
    assert without != before
    assert schemas(admin) == before


def test_collections_that_hold_documents_are_not_dropped_and_nothing_is_half_undone(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["users"].insert_one(user(subscription_type="FREE"))
    before, events = schemas(admin), admin.compliance["migration_history"].count_documents({})

    with pytest.raises(StepFailed, match="users holds documents") as refused:
        deployment.runner().down("000")

    assert "mara" not in str(refused.value)
    assert schemas(admin) == before
    assert admin.compliance["migration_history"].count_documents({}) == events

    deployment.runner().down("000", drop_data=True)
    assert snapshot(admin.app) == {}


def test_an_unknown_target_is_refused_with_the_known_ones(deployment: Deployment) -> None:
    with pytest.raises(UnknownName, match="v006_pre_advanced_indexes"):
        deployment.runner().down("099")


@pytest.mark.parametrize("copies", [2, 30])
def test_duplicate_addresses_are_named_by_id_before_anything_is_built(empty: Deployment, copies: int) -> None:
    admin = empty.admin
    ids = admin.app["users"].insert_many([user() for _ in range(copies)]).inserted_ids

    with pytest.raises(StepFailed) as refused:
        empty.migrate()

    message = str(refused.value)
    assert refused.value.exit_code is ExitCode.PARTIAL
    assert all(str(id_) in message for id_ in ids[:2])
    assert "mara" not in message
    assert len(message) < 500
    assert set(admin.app["users"].index_information()) == {"_id_"}
    assert admin.app["artists"].index_information().keys() == {"_id_"}
    assert names(empty.runner().pending()) == NAMES[2:]

    admin.app["users"].delete_many({"_id": {"$in": ids[1:]}})
    empty.migrate()
    assert admin.app["users"].index_information()["ix_user_email"]["unique"]


def test_two_consents_of_one_person_and_purpose_are_named(empty: Deployment) -> None:
    empty.runner().up("005")
    consent = {"user_id": ObjectId(), "type": "TERMS", "granted": True, "timestamp": NOON}
    ids = empty.admin.app["consent"].insert_many([dict(consent), dict(consent)]).inserted_ids

    with pytest.raises(StepFailed, match=str(ids[1])):
        empty.migrate()


def test_a_foreign_index_on_the_same_keys_is_named_not_replaced(empty: Deployment) -> None:
    empty.runner().up("001")
    empty.admin.app["users"].create_index("email", name="old_email")

    with pytest.raises(StepFailed, match="old_email"):
        empty.migrate()

    assert set(empty.admin.app["users"].index_information()) == {"_id_", "old_email"}


def test_old_documents_are_normalised_and_what_cannot_be_is_set_aside(empty: Deployment) -> None:
    admin = empty.admin
    admin.app["users"].insert_many([{"_id": 1, "email": "a"}, {"_id": 2, "email": "b", "status": "BLOCKED"}])
    admin.app["artists"].insert_many(
        [
            {"_id": 1, "genres": ["Rock", "JAZZ"]},
            {"_id": 2, "genres": ["Rock", 7]},
            {"_id": 3, "genres": "Rock"},
            {"_id": 4, "genres": None},
            {"_id": 5, "genres": []},
            {"_id": 6},
            {"_id": 7, "genres": ["ÉLECTRO"], "note": "kept"},
        ]
    )
    admin.app["tracks"].insert_many([{"_id": 1}, {"_id": 2, "created_at": NOON}])
    lines: list[str] = []

    empty.runner(report=lines.append).up("003")

    assert {found["_id"]: found["status"] for found in admin.app["users"].find()} == {1: "ACTIVE", 2: "BLOCKED"}
    assert {found["_id"]: found.get("genres", "absent") for found in admin.app["artists"].find()} == {
        1: ["rock", "jazz"],
        2: ["Rock", 7],
        3: "Rock",
        4: None,
        5: [],
        6: "absent",
        7: ["électro"],
    }
    tracks = {found["_id"]: found["created_at"] for found in admin.app["tracks"].find()}
    assert isinstance(tracks[1], datetime)
    assert tracks[2] == NOON
    aside = list(admin.compliance["set_aside"].find({}, {"_id": 0, "at": 0}))
    assert [item["document_id"] for item in aside] == [2, 3, 4]
    assert {item["reason"] for item in aside} == {"genres is not a list of texts"}
    assert any("set aside 3 documents of artists" in line for line in lines)
    steps = empty.entries(entity_id="v003_data_normalise_core", action="migration.step")
    assert sum(entry["details"].get("set_aside", 0) for entry in steps) == 3


MIXED_IDS = [
    MinKey(),
    None,
    7,
    Int64(8),
    2.5,
    Decimal128(Decimal("9.5")),
    "text",
    {"nested": 1},
    b"bytes",
    Binary.from_uuid(UUID(int=7)),
    ObjectId(),
    False,
    NOON,
    Timestamp(1, 1),
    MaxKey(),
]


def test_documents_are_visited_whatever_the_type_of_their_id(empty: Deployment) -> None:
    admin = empty.admin
    admin.app["artists"].insert_many([{"_id": id_, "genres": ["Rock"]} for id_ in MIXED_IDS])
    admin.app["users"].insert_many([{"_id": id_, "email": f"u{n}"} for n, id_ in enumerate(MIXED_IDS)])

    empty.runner(batch_docs=2).up("003")

    assert admin.app["artists"].count_documents({"genres": ["rock"]}) == len(MIXED_IDS)
    assert admin.app["users"].count_documents({"status": "ACTIVE"}) == len(MIXED_IDS)


def test_the_old_application_works_until_the_contract(empty: Deployment) -> None:
    admin = empty.admin
    empty.runner().up("003")
    admin.app["users"].insert_one(user(_id=1))

    for number, target in enumerate(("004_pre", "004_data"), 2):
        empty.runner().up(target)
        admin.app["users"].insert_one(user(_id=number, email=f"u{number}@example.org"))
        admin.app["users"].update_one({"_id": number}, {"$set": {"status": "BLOCKED"}})
    with pytest.raises(WriteError):
        admin.app["users"].insert_one(user(_id=9, email="new@example.org", subscription_type="GOLD"))

    empty.runner().up("004_post")

    assert {found["_id"]: found["subscription_type"] for found in admin.app["users"].find()} == {
        1: "FREE",
        2: "FREE",
        3: "FREE",  # written after the backfill
    }
    with pytest.raises(WriteError) as refused:
        admin.app["users"].insert_one(user(_id=10, email="late@example.org"))
    assert refused.value.code == 121


def test_the_contract_names_documents_that_it_would_lock_and_changes_nothing(empty: Deployment) -> None:
    admin = empty.admin
    empty.runner().up("004_data")
    old = admin.app["users"].insert_one(
        {"email": "mara@example.org", "role": 7, "status": "ACTIVE"}, bypass_document_validation=True
    )

    with pytest.raises(StepFailed, match=str(old.inserted_id)) as refused:
        empty.runner().up("004_post")

    assert "mara" not in str(refused.value)
    assert snapshot(admin.app)["users"]["options"]["validationLevel"] == "moderate"
    assert names(empty.runner().pending())[0] == "v004_post_subscription_type"


def test_a_second_runner_is_told_who_runs_migrations(empty: Deployment) -> None:
    second = empty.runner()
    refused: list[str] = []

    def interfere(line: str) -> None:
        if line.startswith("v001"):
            with pytest.raises(LockHeld) as held:
                second.up()
            refused.append(str(held.value))

    done = empty.runner(report=interfere).up()

    assert names(done) == NAMES
    assert len(refused) == 1
    assert str(os.getpid()) in refused[0]
    assert second.up() == ()


def test_of_runners_that_start_at_once_one_migrates(empty: Deployment) -> None:
    runners = [empty.runner() for _ in range(4)]
    together = threading.Barrier(len(runners))
    outcomes: list[object] = []

    def start(runner: Runner) -> None:
        together.wait()
        try:
            outcomes.append(names(runner.up()))
        except LockHeld as held:
            outcomes.append(held)

    threads = [threading.Thread(target=start, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == len(runners)
    assert outcomes.count(NAMES) == 1
    assert all(isinstance(outcome, LockHeld) or outcome == [] for outcome in outcomes if outcome != NAMES)
    assert len(empty.entries(action="migration.applied")) == len(NAMES)


SCRIPTS = {
    "v001_pre_things.py": '''
        """Things."""


        def up(ctx):
            """Create."""
            ctx.create_collection("things", schema={"bsonType": "object"}, level="moderate")
            ctx.create_index("things", "ix_thing_n", [("n", 1)])


        def down(ctx):
            """Drop."""
            ctx.drop_index("things", "ix_thing_n")
            ctx.drop_collection("things")
    ''',
    "v002_data_count.py": '''
        """Count every visit of a document."""


        def up(ctx):
            """Each twice: once by a guarded update, once by a walk that would count a repeat."""
            ctx.backfill("things", where={"seen": {"$exists": False}}, update={"$set": {"seen": 1}, "$inc": {"n": 1}})
            ctx.transform("things", where={}, fields=("n", "deep.n"), function=count)
            ctx.transform("things", where={}, fields=("deep.n",), function=count_deep)


        def count(document):
            if document["_id"] == 5:
                raise ValueError("five is set aside")
            return {"n": document["n"] + 10}


        def count_deep(document):
            return {"deep.n": document["deep"]["n"] + 1}


        def down(ctx):
            """Nothing."""
    ''',
}


def write_scripts(folder: Path, scripts: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, source in scripts.items():
        (folder / name).write_text("\n".join(line[8:] for line in source.splitlines()).lstrip() + "\n")
    return folder


def arrange_things(empty: Deployment, folder: Path) -> tuple[Databases, Deployment]:
    write_scripts(folder, SCRIPTS)
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": 0, "deep": {"n": 0}} for n in range(7)])
    return admin, empty.with_settings(migrations=folder, batch_docs=3, lease=timedelta(seconds=0.3))


def assert_done_once(admin: Databases) -> None:
    found = {document["_id"]: (document["n"], document["deep"]["n"]) for document in admin.app["things"].find()}
    assert found == {n: (1 if n == 5 else 11, 1) for n in range(7)}
    assert [item["document_id"] for item in admin.compliance["set_aside"].find()] == [5]
    assert set(admin.app["things"].index_information()) == {"_id_", "ix_thing_n"}


REPORTS = 25
TRANSACTIONS = 18


@pytest.mark.parametrize("n", range(1, REPORTS + 1))
def test_a_runner_that_dies_between_two_steps_is_finished_by_the_next(
    empty: Deployment, tmp_path: Path, n: int
) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    lines: list[str] = []

    def die(line: str) -> None:
        lines.append(line)
        if len(lines) == n:
            raise Died

    with pytest.raises(Died):
        deployment.runner(report=die).up()
    leave_the_lease_behind(admin)

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")
    assert_done_once(admin)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("n", range(1, TRANSACTIONS + 1))
def test_a_runner_that_dies_at_any_commit_is_finished_by_the_next(
    empty: Deployment, tmp_path: Path, n: int, moment: str
) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    runner = deployment.runner()

    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=n, committed=moment == "after")).up()
    leave_the_lease_behind(admin)

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")
    assert_done_once(admin)


def test_the_deaths_above_are_all_there_are(empty: Deployment, tmp_path: Path) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    lines: list[str] = []
    runner = deployment.runner(report=lines.append)
    databases = mortal(runner.databases, at=0, committed=False)

    replace(runner, databases=databases).up()

    assert len(lines) == REPORTS
    assert databases.fate.calls == TRANSACTIONS
    assert_done_once(admin)


def leave_the_lease_behind(admin: Databases) -> None:
    """A process that is killed gives nothing back: its lease stands until it ends."""
    until = {"$add": ["$$NOW", 300]}
    lease = {"state": "running", "lease": {"owner": "dead:1", "until": until}}
    admin.compliance["migration_lease"].update_one({"_id": "migrations"}, [{"$set": lease}])


def succeeds(deployment: Deployment) -> bool:
    try:
        deployment.runner().up()
    except LockHeld:
        return False
    return True


@pytest.mark.parametrize("n", range(1, 5))
def test_a_revision_that_was_half_undone_can_be_undone_or_applied_again(empty: Deployment, n: int) -> None:
    admin = empty.admin
    runner = empty.runner()
    runner.up("000")
    below = schemas(admin)
    runner.up("001")
    above = schemas(admin)

    for go_on, expected in ((lambda: runner.up("001"), above), (lambda: runner.down("000"), below)):
        runner.up("001")
        with pytest.raises(Died):
            replace(runner, databases=mortal(runner.databases, at=1 + n, committed=True)).down("000")
        assert schemas(admin) not in (above, below)
        go_on()
        assert schemas(admin) == expected


def test_a_revision_that_was_half_applied_can_be_undone(empty: Deployment) -> None:
    admin = empty.admin
    runner = empty.runner()
    runner.up("004")
    before = schemas(admin)
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=4, committed=True)).up("005")
    assert schemas(admin) != before

    runner.down("004_post")

    assert schemas(admin) == before


def test_a_change_of_the_application_between_read_and_write_is_kept_and_transformed(
    empty: Deployment, tmp_path: Path
) -> None:
    folder = write_scripts(
        tmp_path / "scripts",
        {
            "v001_data_lower.py": '''
                """Lower."""


                def up(ctx):
                    """Lower; the application writes while the first batch is being computed."""
                    things = ctx.databases.app["things"]

                    def lower(document):
                        if document["genre"] == "ROCK":
                            things.update_one({"_id": document["_id"], "genre": "ROCK"}, {"$set": {"genre": "JAZZ"}})
                        return {"genre": document["genre"].lower()}

                    ctx.transform("things", where={}, fields=("genre",), function=lower)


                def down(ctx):
                    """Nothing."""
            '''.replace("\n        ", "\n")
        },
    )
    empty.admin.app["things"].insert_many([{"_id": 1, "genre": "ROCK"}, {"_id": 2, "genre": "Folk"}])

    empty.with_settings(migrations=folder).migrate()

    found = {document["_id"]: document["genre"] for document in empty.admin.app["things"].find()}
    assert found == {1: "jazz", 2: "folk"}


@pytest.mark.parametrize(
    ("where", "update"),
    [
        ({"n": {"$exists": True}}, {"$inc": {"n": 1}}),
        ({"n": {"$gte": 0}}, {"$set": {"m": 1}}),
        ({}, {"$set": {"n": 0}}),
    ],
    ids=["counts for ever", "changes another field", "changes nothing"],
)
def test_a_backfill_that_would_never_end_is_refused_with_nothing_changed(
    empty: Deployment, tmp_path: Path, where: Document, update: Document
) -> None:
    source = f'''
        """Backfill."""


        def up(ctx):
            """Never ends."""
            ctx.backfill("things", where={where!r}, update={update!r})


        def down(ctx):
            """Nothing."""
    '''
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": 0} for n in range(5)])
    before = admin.app.command("dbHash")["collections"]["things"]
    deployment = empty.with_settings(migrations=write_scripts(tmp_path / "s", {"v001_data_x.py": source}), batch_docs=2)

    with pytest.raises(StepFailed, match="does not take documents out of its where"):
        deployment.migrate()

    assert admin.app.command("dbHash")["collections"]["things"] == before


CLINIC_MAP = """
apiVersion: datamap/v1
subject:
  collection: patients
  key: patient
  keys:
    patient: {path: _id, type: uuid}
collections:
  visits:
    - locate: {path: patient, key: patient}
      on_erase: {action: delete}
imports: [visits]
"""
CLINIC = {
    "v010_pre_clinic.py": '''
        """Patients and visits of a clinic."""


        def up(ctx):
            """Create."""
            key = {"bsonType": "binData"}
            for name, field in (("patients", "_id"), ("visits", "patient")):
                schema = {"bsonType": "object", "required": [field], "properties": {field: key}}
                ctx.create_collection(name, schema=schema)
            ctx.create_index("visits", "ix_visit_patient", [("patient", 1)])


        def down(ctx):
            """Drop."""
            ctx.drop_collection("visits")
            ctx.drop_collection("patients")
    ''',
}


def test_another_organisation_works_by_settings_alone(empty: Deployment, tmp_path: Path) -> None:
    data_map = tmp_path / "clinic.yaml"
    data_map.write_text(CLINIC_MAP)
    folder = write_scripts(tmp_path / "clinic", CLINIC)
    clinic = empty.with_settings(migrations=folder, data_map=data_map)

    with pytest.raises(ConfigurationError, match="doctor --provision"):  # the roles are those of the other data map
        clinic.migrate()
    provision_stack(clinic.settings, clinic.stack.endpoints)
    clinic.migrate()

    admin = empty.admin
    assert set(snapshot(admin.app)) == {"patients", "visits"}
    patient, other = (Binary.from_uuid(UUID(int=n)) for n in (1, 2))
    admin.app["patients"].insert_many([{"_id": patient}, {"_id": other}])
    admin.app["visits"].insert_many([{"patient": patient}, {"patient": patient}, {"patient": other}])

    job = clinic.run("erasure.request", {"subject_id": str(UUID(int=1))})

    assert job.state == "done", job.error
    assert [found["_id"] for found in admin.app["patients"].find()] == [other]
    assert [found["patient"] for found in admin.app["visits"].find()] == [other]


@pytest.fixture
def copied(deployment: Deployment, tmp_path: Path) -> Deployment:
    """The reference scripts, applied, in a folder that a test may change."""
    folder = tmp_path / "versions"
    folder.mkdir()
    for path in MIGRATIONS.glob("v*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    return deployment.with_settings(migrations=folder)


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"ix_track_album_id"', '"ix_album"'))


def comment(path: Path) -> None:
    path.write_text(f"# {path.name}\n{path.read_text()}")


def add_late(path: Path) -> None:
    (path.parent / "v003_pre_late.py").write_text((MIGRATIONS / "v000_pre_foundation.py").read_text())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (edit, RevisionEdited, "v002_pre_core_indexes"),
        (Path.unlink, MigrationError, "v002_pre_core_indexes"),
        (add_late, MigrationError, "v003_pre_late"),
    ],
    ids=["edited", "missing", "late"],
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_folder_that_does_not_fit_the_history_is_refused(
    copied: Deployment, change: Callable[[Path], None], error: type[Exception], words: str, direction: str
) -> None:
    change(copied.settings.migrations / "v002_pre_core_indexes.py")
    admin = copied.admin
    before = hashes(admin)

    with pytest.raises(error, match=words):
        copied.runner().up() if direction == "up" else copied.runner().down("003")

    assert hashes(admin) == before


def test_comments_may_change(copied: Deployment) -> None:
    comment(copied.settings.migrations / "v002_pre_core_indexes.py")

    assert copied.runner().up() == ()


def migrate_process(deployment: Deployment, home: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "migrations", *arguments],
        env={**deployment.environ(home), "PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def migrate_command(deployment: Deployment, home: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    with migrate_process(deployment, home, *arguments, **environ) as process:
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_the_command_applies_shows_and_undoes(empty: Deployment, tmp_path: Path) -> None:
    dry = migrate_command(empty, tmp_path, "--env=production", "--dry-run")
    assert (dry[0], dry[1]) == (0, f"{len(NAMES)} to run\n")
    assert snapshot(empty.admin.app) == {}

    first = migrate_command(empty, tmp_path, "--env=production")
    assert (first[0], first[1]) == (0, f"{len(NAMES)} applied\n")
    assert "create collection users" in first[2]

    again = migrate_command(empty, tmp_path, "--env=production")
    assert again == (0, "nothing to do\n", "")

    down = migrate_command(empty, tmp_path, "--env=production", "--down", "--to=003")
    assert (down[0], down[1]) == (0, f"{len(NAMES) - 4} reverted\n")


def test_the_command_reads_the_profile(empty: Deployment, tmp_path: Path) -> None:
    (tmp_path / "staging.env").write_text(f"MONGODB_DATABASE={empty.name}\n")

    code, out, _ = migrate_command(empty, tmp_path, "--env=staging", "--to=000", MONGODB_DATABASE="elsewhere")

    assert (code, out) == (0, "1 applied\n")
    assert names(empty.runner().pending()) == NAMES[1:]


def test_the_command_refuses_with_the_exit_code_of_its_reason(empty: Deployment, tmp_path: Path) -> None:
    refusals = [
        (ExitCode.USAGE, ["--to=099"], {}),
        (ExitCode.USAGE, ["--down", "--to="], {}),
        (ExitCode.USAGE, ["--no-such-option"], {}),
        (ExitCode.CONFIGURATION, [], {"MONGODB_URI": "", "COMPLIANCE_MIGRATOR_URI": ""}),
        (ExitCode.CONFIGURATION, [], {"MONGODB_DATABASE": "a/b"}),
        (ExitCode.CONFIGURATION, [], {"COMPLIANCE_MIGRATOR_URI": empty.environ(tmp_path)["COMPLIANCE_AUDITOR_URI"]}),
        (ExitCode.UNAVAILABLE, [], {"COMPLIANCE_MIGRATOR_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"}),
    ]

    found = [migrate_command(empty, tmp_path, *arguments, **environ) for _, arguments, environ in refusals]

    assert [code for code, _, _ in found] == [int(code) for code, _, _ in refusals]
    assert all(err.splitlines()[-1].strip() for _, _, err in found)
    assert snapshot(empty.admin.app) == {}


def test_the_command_names_duplicates_and_says_that_a_part_was_done(empty: Deployment, tmp_path: Path) -> None:
    ids = empty.admin.app["users"].insert_many([user(), user()]).inserted_ids

    code, out, err = migrate_command(empty, tmp_path)

    assert (code, out) == (int(ExitCode.PARTIAL), "")
    assert str(ids[0]) in err
    assert "mara" not in err


GATED = {
    "v001_pre_gate.py": '''
        """Wait for a gate."""


        def up(ctx):
            """Create a collection, then wait in the middle of the work."""
            ctx.create_collection("things", schema={"bsonType": "object"})
            while ctx.databases.app["gate"].find_one() is None:
                pass
            ctx.create_collection("more", schema={"bsonType": "object"})


        def down(ctx):
            """Drop."""
            ctx.drop_collection("more")
            ctx.drop_collection("things")
    ''',
}


def test_a_killed_process_holds_others_off_until_its_lease_ends(empty: Deployment, tmp_path: Path) -> None:
    folder = write_scripts(tmp_path / "gated", GATED)
    environ = {"COMPLIANCE_MIGRATIONS": str(folder), "COMPLIANCE_LEASE_SECONDS": "4"}
    admin = empty.admin
    with migrate_process(empty, tmp_path, **environ) as process:
        waiting = {"entity_id": "v001_pre_gate", "action": "migration.step"}
        wait_until(lambda: len(empty.entries(**waiting)) == 1, timeout=40, what="the first step is done")

        code, _, err = migrate_command(empty, tmp_path, **environ)
        assert code == ExitCode.TEMPORARY
        assert f":{process.pid}" in err

        process.send_signal(signal.SIGKILL)
    admin.app["gate"].insert_one({"_id": 1})

    def is_done() -> bool:
        return migrate_command(empty, tmp_path, **environ)[0] == ExitCode.OK

    wait_until(is_done, timeout=60, what="another process goes on")
    assert set(snapshot(admin.app)) == {"gate", "things", "more"}
    applied = empty.entries(entity_id="v001_pre_gate", action="migration.applied")
    assert len(applied) == 1


def test_migrations_run_as_a_job(empty: Deployment) -> None:
    empty.runner().up("000")  # the ledger of jobs is there once the foundation is

    up = empty.run("migration.run", {"direction": "up"})
    again = empty.run("migration.run", {"direction": "up"}, "r-2")
    down = empty.run("migration.run", {"direction": "down", "target": "003"}, "r-3")
    refused = empty.run("migration.run", {"direction": "down", "target": "099"}, "r-4")
    aimless = empty.run("migration.run", {"direction": "down"}, "r-5")

    assert (up.state, (up.result or {})["revisions"]) == ("done", NAMES[1:])
    assert (again.state, (again.result or {})["revisions"]) == ("done", [])
    assert (down.state, (down.result or {})["revisions"]) == ("done", NAMES[:3:-1])
    assert (refused.state, (refused.error or {})["code"]) == ("rejected", "UnknownName")
    assert aimless.state == "rejected"
    assert {entry["performed_by"] for entry in empty.entries(action="migration.reverted")} == {"worker"}


def test_a_migration_job_that_meets_duplicates_is_parked_for_a_person(empty: Deployment) -> None:
    empty.runner().up("001")
    empty.admin.app["users"].insert_many([user(), user()])

    job = empty.run("migration.run", {"direction": "up"})

    assert (job.state, (job.error or {})["code"]) == ("parked", "StepFailed")
    assert "mara" not in str(job.error)


def test_a_migration_job_waits_for_the_lease_of_another(empty: Deployment) -> None:
    empty.runner().up("000")
    states: list[str] = []

    def interfere(line: str) -> None:
        if line.startswith("v001"):
            states.append(empty.run("migration.run", {"direction": "up"}).state)

    empty.runner(report=interfere).up("001")

    assert states == ["queued"]


def test_the_migrator_may_write_where_it_must_and_nowhere_else(deployment: Deployment) -> None:
    migrator = connect(deployment.addresses, Role.MIGRATOR, app_name="test")
    deployment.cleanup.callback(migrator.client.close)
    event = {"revision": "v001", "event": "applied"}

    migrator.compliance["migration_history"].insert_one(event)
    for attempt in (
        lambda: migrator.compliance["migration_history"].delete_many({}),
        lambda: migrator.compliance["migration_history"].update_many({}, {"$set": {"by": "x"}}),
        lambda: migrator.compliance["erasure_requests"].insert_one({}),
        lambda: migrator.compliance.drop_collection("migration_history"),
    ):
        with pytest.raises(Exception, match="not authorized"):
            attempt()


def test_a_document_that_queries_cannot_compare_is_transformed_all_the_same(empty: Deployment) -> None:
    """A value read from a document is no filter: a regular expression in it would match something else."""
    admin = empty.admin
    odd = {"_id": 1, "genres": ["Rock", "Jazz"], "bio": Regex("^a")}
    admin.app["artists"].insert_one(odd)

    empty.runner().up("003")

    found = admin.app["artists"].find_one({"_id": 1})
    assert bson.encode(found or {}) == bson.encode(odd | {"genres": ["rock", "jazz"]})
