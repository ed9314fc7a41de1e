"""Normalise old documents: a status for every user, genres in lower case, a creation date for every track."""

from collections.abc import Mapping
from typing import Any

from migrations.context import Context

OWNER = "backend"
REVIEWED_BY = "data protection"


def up(ctx: Context) -> None:
    """Fill and normalise in batches; a genre that is no text sets its artist aside."""
    ctx.backfill("users", where={"status": {"$exists": False}}, update={"$set": {"status": "ACTIVE"}})
    ctx.transform("artists", where={"genres": {"$exists": True}}, fields=("genres",), function=lower_genres)
    ctx.backfill("tracks", where={"created_at": {"$exists": False}}, update={"$currentDate": {"created_at": True}})


def down(ctx: Context) -> None:
    """Leave the values: the application before this migration reads normalised values just as well."""
    ctx.report("normalised values stay as they are")


def lower_genres(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the genres in lower case, or nothing where they are."""
    genres = document["genres"]
    if not isinstance(genres, list) or not all(isinstance(genre, str) for genre in genres):
        raise ValueError("genres is not a list of texts")
    lowered = [genre.lower() for genre in genres]
    return {} if lowered == genres else {"genres": lowered}
