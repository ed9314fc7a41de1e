"""Where each stream of the watcher stands.

Document shape (``watch_tokens``)::

    {_id: <database, or "local.oplog.rs">, token: object, updated_at: date}
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from compliance.mongo import Databases, Session
from compliance.settings import CLOCKS_APART

TOKENS = "watch_tokens"
HISTORY_LOST = (286, 280)  # the oplog does not reach back to a token
UNUSABLE = (*HISTORY_LOST, 260, 9, 15, 40647, 40649, 50793, 50811)  # all but the first: a token that no server wrote
_TIME = slice(2, 10)  # of the hexadecimal digits of a token: seconds since 1970


def find_token(databases: Databases, stream: str) -> Mapping[str, Any] | None:
    """Return what was saved last, None where *stream* begins."""
    saved = databases.compliance[TOKENS].find_one({"_id": stream})
    return saved["token"] if saved else None


def is_to_come(token: str, now: datetime) -> bool:
    """Whether the digits of a resume token name a moment after *now*: the server would show nothing until then."""
    try:
        seconds = int(token[_TIME], 16)
    except ValueError:
        return False  # the server says so, too
    return seconds > (now + CLOCKS_APART).timestamp()


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
