"""Create the core collections: users, artists, tracks, playlists, analytics."""

from typing import Any

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

STRING, DATE, ID = {"bsonType": "string"}, {"bsonType": "date"}, {"bsonType": "objectId"}

SCHEMAS: dict[str, dict[str, Any]] = {
    "users": {
        "bsonType": "object",
        "required": ["email", "role", "status", "created_at"],
        "properties": {
            "email": STRING,
            "role": STRING,
            "status": STRING,
            "preferences": {"bsonType": "object"},
            "created_at": DATE,
            "updated_at": DATE,
        },
    },
    "artists": {
        "bsonType": "object",
        "required": ["user_id", "display_name", "created_at"],
        "properties": {
            "user_id": ID,
            "display_name": STRING,
            "genres": {"bsonType": "array"},
            "bio": STRING,
            "created_at": DATE,
            "updated_at": DATE,
        },
    },
    "tracks": {
        "bsonType": "object",
        "required": ["title", "artist_id", "created_at"],
        "properties": {
            "title": STRING,
            "artist_id": ID,
            "album_id": ID,
            "duration_ms": {"bsonType": "int"},
            "audio_features": {"bsonType": "object"},
            "created_at": DATE,
            "updated_at": DATE,
        },
    },
    "playlists": {
        "bsonType": "object",
        "required": ["name", "owner_id", "created_at"],
        "properties": {
            "name": STRING,
            "owner_id": ID,
            "track_ids": {"bsonType": "array"},
            "collaborative": {"bsonType": "bool"},
            "created_at": DATE,
            "updated_at": DATE,
        },
    },
    "analytics": {
        "bsonType": "object",
        "required": ["user_id", "event_type", "timestamp"],
        "properties": {
            "user_id": ID,
            "event_type": STRING,
            "payload": {"bsonType": "object"},
            "timestamp": DATE,
        },
    },
}


def up(ctx: Context) -> None:
    """Create them, or give existing ones these validators; documents that break them may still be updated."""
    for name, schema in SCHEMAS.items():
        ctx.create_collection(name, schema=schema, level="moderate")


def down(ctx: Context) -> None:
    """Drop them, unless they hold documents."""
    for name in reversed(SCHEMAS):
        ctx.drop_collection(name)
