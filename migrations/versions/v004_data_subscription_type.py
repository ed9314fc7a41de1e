"""Give every user a subscription type: FREE where none is known."""

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"


def up(ctx: Context) -> None:
    """Fill in batches."""
    ctx.backfill(
        "users", where={"subscription_type": {"$exists": False}}, update={"$set": {"subscription_type": "FREE"}}
    )


def down(ctx: Context) -> None:
    """Leave the values: what was filled cannot be told from what was chosen."""
    ctx.report("subscription types stay as they are")
