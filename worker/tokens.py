"""Where each stream of the watcher stands.

Document shape (``watch_tokens``)::

    {_id: <database, or "local.oplog.rs">, token: object, updated_at: date}
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from compliance.mongo import Databases, Session

TOKENS = "watch_tokens"
HISTORY_LOST = (286, 280)  # the oplog does not reach back to a token


def find_token(databases: Databases, stream: str) -> Mapping[str, Any] | None:
    """Return what was saved last, None where *stream* begins."""
    saved = databases.compliance[TOKENS].find_one({"_id": stream})
    return saved["token"] if saved else None


def save_token(
    databases: Databases,
    stream: str,
    token: Mapping[str, Any] | None,
    *,
    now: datetime,
    session: Session | None = None,
) -> None:
    """Save where *stream* stands; None lets it begin again."""
    databases.compliance[TOKENS].update_one(
        {"_id": stream}, {"$set": {"token": token, "updated_at": now}}, upsert=True, session=session
    )
