"""Create the indexes of the advanced collections; ix_audit_entity is there already (000)."""

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

INDEXES: tuple[tuple[str, str, list[tuple[str, int | str]], bool], ...] = (
    ("ai_content", "ix_ai_content_type_status", [("type", 1), ("status", 1)], False),
    ("security_events", "ix_security_event_type", [("event_type", 1), ("detected_at", 1)], False),
    ("consent", "ix_consent_user_type", [("user_id", 1), ("type", 1)], True),
    ("geo_events", "ix_geo_location", [("location", "2dsphere")], False),
    ("multilingual_content", "ix_multilingual_lang_title", [("lang", 1), ("title", 1)], False),
    ("versioning", "ix_versioning_entity_version", [("entity_type", 1), ("entity_id", 1), ("version", -1)], False),
)


def up(ctx: Context) -> None:
    """Create them; one consent document per person and type: the unique index names others first."""
    for collection, name, keys, unique in INDEXES:
        ctx.create_index(collection, name, keys, unique=unique)


def down(ctx: Context) -> None:
    """Drop them."""
    for collection, name, _, _ in reversed(INDEXES):
        ctx.drop_index(collection, name)
