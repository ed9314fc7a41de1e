"""What happens to a collection and its copy, from the change stream of the database."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import Timestamp
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from compliance.errors import StepFailed
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import shadow_of

HISTORY_LOST = (280, 286)  # ChangeStreamFatalError, ChangeStreamHistoryLost
WAIT_MS = 20
EPOCH = Timestamp(0, 0)
CHANGING = frozenset({"insert", "update", "replace", "delete"})
ENDING = frozenset({"drop", "dropDatabase"})


class HistoryLost(StepFailed):
    """The oplog does not reach back to where somebody stood."""


@dataclass(slots=True)
class Changes:
    """Some changes in a row.

    Attributes:
        ids: Which documents of the collection may be other ones in the copy, once each.
        deleted: Those whose last change was to be deleted.
        token: Where the stream goes on behind them.
        upto: The time of the last one.
        is_modified: Whether the validator was changed.
        is_exchanged: Whether the copy took the place of the collection.
        is_last: Whether there are no more for now.
    """

    ids: dict[bytes, Any] = field(default_factory=dict)
    deleted: dict[bytes, Any] = field(default_factory=dict)
    token: Mapping[str, Any] | None = None
    upto: Timestamp = EPOCH
    is_exchanged: bool = False
    is_modified: bool = False
    is_last: bool = False

    def add(self, id_: Any, *, is_deleted: bool) -> None:
        """Note a change of the document *id_*."""
        key = bson.encode({"": id_})
        self.ids[key] = id_
        if is_deleted:
            self.deleted[key] = id_
        else:
            self.deleted.pop(key, None)


@dataclass(frozen=True, slots=True)
class Stream:
    """The changes of one collection and its copy."""

    collection: str
    events: ChangeStream[Document]

    def next(self, limit: int, *, upto: Timestamp | None = None) -> Changes:
        """Return the next changes, at most *limit*, or up to the exchange; waits for none.

        Args:
            limit: Beside writers who never rest this many are waited for, unless *upto* says how far is enough.
            upto: Return behind the first change that is as late as this.

        Raises:
            StepFailed: When somebody else dropped or renamed the collection.
        """
        found = Changes()
        with _stream_errors(self.collection):
            for _ in range(limit):
                event = self.events.try_next()
                if event is None:
                    found.is_last = True
                    break
                found.upto = event["clusterTime"]
                self._note(event, found)
                if found.is_exchanged or (upto is not None and found.upto >= upto):
                    break
            found.token = self.events.resume_token
        return found

    def _note(self, event: Document, found: Changes) -> None:
        kind, name = event["operationType"], event.get("ns", {}).get("coll")
        if kind == "rename" and event["to"]["coll"] == self.collection:
            found.is_exchanged = True
        elif kind == "modify":
            found.is_modified = True
        elif kind in CHANGING:
            found.add(event["documentKey"]["_id"], is_deleted=kind == "delete")
        elif kind in ENDING or (kind == "rename" and name == self.collection):
            raise StepFailed(f"somebody dropped or renamed {self.collection} while it was rebuilt")


@contextmanager
def follow(databases: Databases, collection: str, since: Mapping[str, Any] | Timestamp) -> Iterator[Stream]:
    """Open the changes of *collection* since a token or a time.

    What others remove from the copy counts, too: an erasure does. What is there is asked of the collection.

    Raises:
        HistoryLost: When the oplog does not reach back so far.
    """
    copies = {"$regex": f"^{_quoted(shadow_of(collection))}(_[0-9]+)?$"}
    removed = {"ns.coll": shadow_of(collection), "operationType": "delete"}
    renamed = {"ns.coll": copies, "operationType": "rename"}
    fields = dict.fromkeys(("operationType", "ns", "to", "documentKey", "clusterTime"), 1)
    pipeline: list[Document] = [{"$match": {"$or": [{"ns.coll": collection}, removed, renamed]}}, {"$project": fields}]
    start = {"start_at_operation_time": since} if isinstance(since, Timestamp) else {"start_after": since}
    with _stream_errors(collection):
        stream = databases.app.watch(pipeline, show_expanded_events=True, max_await_time_ms=WAIT_MS, **start)
    with stream:
        yield Stream(collection, stream)


@contextmanager
def _stream_errors(collection: str) -> Iterator[None]:
    with driver_errors():
        try:
            yield
        except OperationFailure as error:
            if error.code not in HISTORY_LOST:
                raise
            raise HistoryLost(
                f"the oplog does not reach back to where the copy of {collection} stood; make it larger "
                "(replSetResizeOplog), or let less be written meanwhile, then `compliance migrate up` makes the copy "
                "anew; ctx.drop_rebuilt, or the way back of the script, drops it"
            ) from None


def now_of(databases: Databases) -> Timestamp:
    """Return the time from which changes are to be followed that are not there yet."""
    with driver_errors(), databases.client.start_session() as session:
        databases.app.command("ping", session=session)
        moment = session.operation_time
    if moment is None:
        raise StepFailed("the server tells no time of its operations: only a replica set can be followed")
    return moment


def _quoted(text: str) -> str:
    return "".join(f"\\{char}" if not char.isalnum() and char != "_" else char for char in text)
