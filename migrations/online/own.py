"""Which writes are ours: each transaction that writes a shape says so in itself.

A change event carries session and number of its transaction. Without this, what the reconciler wrote would look as if
an application had written it, and what follows from it would be carried back.

Document shape (``migration_writes``)::

    {_id: {session: bin, number: long}, revision: str, at: date}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson.int64 import Int64

from compliance.mongo import Databases, Session, driver_errors
from compliance.settings import CLOCKS_APART

WRITES = "migration_writes"
REMEMBERED = 10_000

Key = tuple[bytes, int]


def record(databases: Databases, revision: str, *, at: datetime, session: Session) -> None:
    """Say in the transaction of *session* that it is ours; once for each transaction."""
    number = session._server_session.transaction_id  # noqa: SLF001 - it has no public name
    key = {"session": bytes(session.session_id["id"]), "number": Int64(number)}
    databases.compliance[WRITES].insert_one({"_id": key, "revision": revision, "at": at}, session=session)


def forget(databases: Databases, revision: str, *, before: datetime | None = None) -> None:
    """Remove what is known of *revision*: of what is not read again, or of all when it is not kept in step any more.

    Args:
        databases: Where.
        revision: The online change.
        before: Up to when its events were read for good.
    """
    until = {} if before is None else {"at": {"$lt": before - CLOCKS_APART}}
    with driver_errors():
        databases.compliance[WRITES].delete_many({"revision": revision, **until})


def key_of(event: Mapping[str, Any]) -> Key | None:
    """Return the transaction of *event*; None where it was none."""
    if "lsid" not in event or "txnNumber" not in event:
        return None
    return bytes(event["lsid"]["id"]), int(event["txnNumber"])


@dataclass(slots=True)
class OwnWrites:
    """Answers whether transactions are ours, and remembers the answers."""

    databases: Databases
    _known: dict[Key, bool] = field(default_factory=dict)

    def ours(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Return those among *keys* that are transactions of ours."""
        wanted = set(keys)
        unknown = [key for key in wanted if key not in self._known]
        if unknown:
            if len(self._known) > REMEMBERED:
                self._known.clear()
                unknown = list(wanted)
            ids = [{"session": session, "number": Int64(number)} for session, number in unknown]
            with driver_errors():
                found = self.databases.compliance[WRITES].find({"_id": {"$in": ids}}, {"_id": 1})
                present = {(bytes(one["_id"]["session"]), int(one["_id"]["number"])) for one in found}
            self._known |= {key: key in present for key in unknown}
        return frozenset(key for key in wanted if self._known[key])
