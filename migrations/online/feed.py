"""The change events of one collection, and how far they were read.

A position is a moment of the oplog: everything that was committed up to it has been read. So who makes a moment while a
snapshot is open, and reads up to it, has seen every write that is in the snapshot.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from compliance.errors import ResumeTokenLost, StoreUnavailable
from compliance.mongo import Databases, Document, driver_errors
from migrations.online.shape import Shape

Token = Mapping[str, Any]


class CollectionGone(Exception):
    """The collection was dropped, or has another name: what was written since does not come by its events."""


CONTROL = "migration_control"
AWAIT_MS = 20
BATCH_EVENTS = 500
HISTORY_LOST = (286, 280)
ENDS = ("drop", "rename", "dropDatabase", "invalidate")
NEEDED = ("_id", "operationType", "documentKey", "clusterTime", "lsid", "txnNumber", "updateDescription")
_SECONDS, _COUNT = slice(2, 10), slice(10, 18)  # of the hexadecimal digits of a token


def moment_of(token: Token) -> Timestamp:
    """Return the moment of the oplog that *token* names."""
    digits = str(token["_data"])
    return Timestamp(int(digits[_SECONDS], 16), int(digits[_COUNT], 16))


def majority_moment(databases: Databases) -> Timestamp:
    """Return a moment up to which everything is committed at majority: where a stream may begin."""
    with driver_errors():
        hello = databases.client.admin.command("hello")
    moment: Timestamp = hello["lastWrite"]["majorityOpTime"]["ts"]
    return moment


def present_moment(databases: Databases) -> Timestamp:
    """Return the last moment of the oplog: what was acknowledged before this call came no later."""
    with driver_errors():
        moment: Timestamp = databases.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return moment


def is_there(databases: Databases, shape: Shape) -> bool:
    """Whether the collection is there, under its name."""
    with driver_errors():
        return bool(databases.app.list_collection_names(filter={"name": shape.collection}))


def next_moment(databases: Databases, name: str) -> Timestamp:
    """Make a moment of the oplog, and return it: every snapshot that is open now is of an earlier one.

    What a server says of the time of a read is no earlier than the last write of the same connection, and no more.
    """
    with driver_errors(), databases.client.start_session() as session:
        databases.compliance[CONTROL].update_one(
            {"_id": f"moment {name}"}, {"$inc": {"number": 1}}, upsert=True, session=session
        )
        moment = session.operation_time
    if moment is None:
        raise StoreUnavailable("the server does not say when it wrote")
    return moment


@dataclass(slots=True)
class Feed:
    """Events as they come; see ``open_feed``."""

    stream: ChangeStream[Document]
    start: Timestamp

    @property
    def token(self) -> Token | None:
        """Behind everything that was read; None where that is nothing, and the stream begins at its start."""
        return self.stream.resume_token

    def moment_of(self, token: Token | None) -> Timestamp:
        """Return the moment that *token* names."""
        return self.start if token is None else moment_of(token)

    def next(self) -> Document | None:
        """Return the next event; None when there is none at present.

        Raises:
            CollectionGone: When the collection was dropped or renamed, also if it is back.
        """
        # A transaction that waits for an event must not lend its time limit to the cursor: that would be how long the
        # server lets it wait.
        event: Document | None = Context().run(self.stream.try_next)
        if event is not None and event["operationType"] in ENDS:
            raise CollectionGone
        return event

    def has_reached(self, moment: Timestamp) -> bool:
        """Whether everything up to *moment* was read; asked when there is no event at present."""
        return self.moment_of(self.token) >= moment


@contextmanager
def open_feed(databases: Databases, shape: Shape, *, token: Token | None, start: Timestamp) -> Iterator[Feed]:
    """Read the events of the collection behind *token*, or from *start* on, for the block.

    Raises:
        ResumeTokenLost: When the oplog does not reach back so far.
    """
    contents = {f"fullDocument.{name}": 1 for name in (*shape.old, *shape.new)}
    stages = [{"$project": dict.fromkeys(NEEDED, 1) | contents}]
    begin: dict[str, Any] = {"start_at_operation_time": start} if token is None else {"start_after": token}
    try:
        with databases.app[shape.collection].watch(
            stages, max_await_time_ms=AWAIT_MS, batch_size=BATCH_EVENTS, **begin
        ) as stream:
            yield Feed(stream, start)
    except OperationFailure as error:
        if error.code not in HISTORY_LOST:
            raise
        raise ResumeTokenLost(
            f"the oplog no longer reaches back to the last change of {shape.collection} that was followed"
        ) from None
