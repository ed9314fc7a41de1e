"""The migrations of the reference domain: what they leave, and what they tell."""

import pytest
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

from compliance.mongo import Document

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
