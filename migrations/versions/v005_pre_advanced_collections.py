"""Create the advanced collections: AI content, security, consent, geo, multilingual and versioned content."""

from typing import Any

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

STRING, DATE, ID, OBJECT = (
    {"bsonType": "string"},
    {"bsonType": "date"},
    {"bsonType": "objectId"},
    {"bsonType": "object"},
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "ai_content": {
        "bsonType": "object",
        "required": ["type", "payload", "created_at"],
        "properties": {"type": STRING, "payload": OBJECT, "status": STRING, "created_at": DATE, "updated_at": DATE},
    },
    "security_events": {
        "bsonType": "object",
        "required": ["event_type", "detected_at"],
        "properties": {
            "event_type": STRING,
            "detected_at": DATE,
            "details": OBJECT,
            "resolved": {"bsonType": "bool"},
        },
    },
    "consent": {
        "bsonType": "object",
        "required": ["user_id", "type", "granted", "timestamp"],
        "properties": {
            "user_id": ID,
            "type": {"enum": ["TERMS", "PRIVACY", "MARKETING", "ANALYTICS", "THIRD_PARTY"]},
            "granted": {"bsonType": "bool"},
            "timestamp": DATE,
        },
    },
    "geo_events": {
        "bsonType": "object",
        "required": ["location", "event_type", "created_at"],
        "properties": {
            "location": {
                "bsonType": "object",
                "required": ["type", "coordinates"],
                "properties": {"type": {"enum": ["Point"]}, "coordinates": {"bsonType": "array"}},
            },
            "event_type": STRING,
            "details": OBJECT,
            "created_at": DATE,
        },
    },
    "multilingual_content": {
        "bsonType": "object",
        "required": ["title", "lang", "created_at"],
        "properties": {
            "title": STRING,
            "lang": STRING,
            "content": STRING,
            "tags": {"bsonType": "array"},
            "created_at": DATE,
            "updated_at": DATE,
        },
    },
    "versioning": {
        "bsonType": "object",
        "required": ["entity_type", "entity_id", "version", "created_at"],
        "properties": {
            "entity_type": STRING,
            "entity_id": ID,
            "version": {"bsonType": "int"},
            "description": STRING,
            "checksum": STRING,
            "created_at": DATE,
        },
    },
}


def up(ctx: Context) -> None:
    """Create them; the audit log is there already (000)."""
    for name, schema in SCHEMAS.items():
        ctx.create_collection(name, schema=schema, level="moderate")


def down(ctx: Context) -> None:
    """Drop them, unless they hold documents."""
    for name in reversed(SCHEMAS):
        ctx.drop_collection(name)
