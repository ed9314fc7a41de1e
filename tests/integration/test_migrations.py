"""The migrations of the reference domain: what they leave, up and down again, and whom they refuse."""

import os
import threading
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from deployment import Deployment
from migrated import (
    ARRAY,
    BOOL,
    DATE,
    ID,
    INT,
    NAMES,
    NOON,
    OBJECT,
    STRING,
    SUBSCRIPTIONS,
    hashes,
    names,
    schemas,
    snapshot,
    user,
)
from pymongo.errors import WriteError

from compliance.errors import (
    ExitCode,
    LockHeld,
    StepFailed,
    UnknownName,
)
from compliance.mongo import Document
from migrations.runner import Runner

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
