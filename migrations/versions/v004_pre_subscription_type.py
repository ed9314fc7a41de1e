"""Allow users.subscription_type: the application before this migration keeps working."""

from typing import Any

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

TYPES = ["FREE", "PREMIUM", "FAMILY", "STUDENT", "TRIAL"]
STRING, DATE = {"bsonType": "string"}, {"bsonType": "date"}

BEFORE: dict[str, Any] = {
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
}
EXPANDED: dict[str, Any] = {
    **BEFORE,
    "properties": {**BEFORE["properties"], "subscription_type": {"enum": TYPES}},
}


def up(ctx: Context) -> None:
    """Expand: the field may be there, and has one of the known values."""
    ctx.set_schema("users", schema=EXPANDED, level="moderate")


def down(ctx: Context) -> None:
    """Take the field out of the validator; values stay."""
    ctx.set_schema("users", schema=BEFORE, level="moderate")
