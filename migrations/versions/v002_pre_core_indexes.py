"""Create the indexes of the core collections."""

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"

INDEXES: tuple[tuple[str, str, list[tuple[str, int | str]], bool], ...] = (
    ("users", "ix_user_email", [("email", 1)], True),
    ("artists", "ix_artist_user_id", [("user_id", 1)], False),
    ("tracks", "ix_track_artist_id", [("artist_id", 1)], False),
    ("tracks", "ix_track_album_id", [("album_id", 1)], False),
    ("playlists", "ix_playlist_owner_id", [("owner_id", 1)], False),
    ("analytics", "ix_analytics_user_event", [("user_id", 1), ("event_type", 1)], False),
)


def up(ctx: Context) -> None:
    """Create them; the unique one refuses and names duplicates before anything is built."""
    for collection, name, keys, unique in INDEXES:
        ctx.create_index(collection, name, keys, unique=unique)


def down(ctx: Context) -> None:
    """Drop them."""
    for collection, name, _, _ in reversed(INDEXES):
        ctx.drop_index(collection, name)
