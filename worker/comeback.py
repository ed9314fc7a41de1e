"""Follows what is written to the application database, and asks for the erasure of erased people who stand in it.

Jobs and resume token commit in one transaction, as the watcher's do. What is read stays in memory for the moment in
which it is looked at. Where the history was lost, and at the very first start, the whole database is looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import bson
import structlog
from bson.raw_bson import RawBSONDocument
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from compliance.erasure.returns import Returned
from compliance.erasure.sightings import RAW, Written, people_in
from compliance.errors import ResumeTokenLost
from compliance.jobs.job import Job
from compliance.mongo import Document, Session
from worker.returns import Asked, ask_again, ask_look, erased_people, publish
from worker.services import Services
from worker.telemetry import metrics, report_error
from worker.tokens import HISTORY_LOST, find_token, save_token

log = structlog.get_logger(__name__)

RETURNS = "returns"
WRITES = ("insert", "replace", "update")
TOO_LARGE = 10334  # an event beyond the limit of a document: nobody can read on behind it
BATCH_EVENTS = 500
BATCH_BYTES = 8 * 1024 * 1024
AWAIT_MS = 100
IDLE_SAVE = timedelta(seconds=10)
STAGES: list[Document] = [
    {"$match": {"operationType": {"$in": list(WRITES)}}},
    {
        "$project": {
            "ns.coll": 1,
            "documentKey": 1,
            "fullDocument": 1,
            "updateDescription.updatedFields": 1,
        }
    },
]


def streams_of_returns(services: Services) -> tuple[str, ...]:
    """Return the name of the stream, where this process could recognise somebody in it."""
    return (RETURNS,) if services.pseudonyms is not None or not services.data_map.root_key.personal else ()


@dataclass(frozen=True, slots=True)
class Comeback:
    """Follows the writes of the application.

    Attributes:
        on_read: Told whenever the stream was read, also when nothing was there.
        on_saved: Told when the token is saved.
    """

    services: Services
    should_stop: Callable[[], bool]
    on_read: Callable[[], None] = lambda: None
    on_saved: Callable[[], None] = lambda: None

    @property
    def place_id(self) -> str:
        """The id of the token; no database has a name with a colon."""
        return f"{self.services.databases.name}:{RETURNS}"

    def follow(self) -> None:
        """Follow until asked to stop; begin anew where the server cannot go on from the token."""
        self.on_saved()
        try:
            self._follow()
        except OperationFailure as error:
            if error.code not in (*HISTORY_LOST, TOO_LARGE):
                raise
            lost = ResumeTokenLost("not every write of the application was seen; the whole database is looked at")
            log.error("watch.history_lost", database=self.place_id)  # noqa: TRY400 - a stack could quote values
            report_error(lost, kind="watcher", request_id="none")
            save_token(self.services.databases, self.place_id, None, now=self.services.clock.now())

    def _follow(self) -> None:
        token = find_token(self.services.databases, self.place_id)
        raw = self.services.databases.app.with_options(codec_options=RAW)
        with raw.watch(STAGES, resume_after=token, max_await_time_ms=AWAIT_MS, batch_size=BATCH_EVENTS) as stream:
            if token is None:
                self._begin(stream)
            log.info("watch.following", database=self.place_id)
            self._read(stream)

    def _begin(self, stream: ChangeStream[RawBSONDocument]) -> None:
        """Nobody has looked yet at what is there: ask for that, and begin here."""
        now, token = self.services.clock.now(), _token_of(stream)
        asked: list[Job | None] = []

        def transaction(session: Session) -> None:
            asked[:] = [ask_look(self.services, cause=f"look-{now.isoformat()}", session=session)]
            save_token(self.services.databases, self.place_id, token, now=now, session=session)

        self.services.databases.transact(transaction)
        self.on_saved()
        for job in asked:
            if job is not None:
                self.services.publish(job)

    def _read(self, stream: ChangeStream[RawBSONDocument]) -> None:
        saved_at = self.services.clock.now()
        while not self.should_stop():
            changes = _next_batch(stream)
            self.on_read()
            now = self.services.clock.now()
            if changes or now - saved_at > IDLE_SAVE:
                self._commit(_token_of(stream), self._people_in(changes))
                metrics.WATCH_EVENTS.inc(RETURNS, by=len(changes))
                saved_at = now

    def _people_in(self, changes: Sequence[RawBSONDocument]) -> list[Returned]:
        """Return the erased people who stand in what was written, each once."""
        services = self.services
        return people_in(
            list(map(_written, changes)), erased_people(services), services.data_map, now=services.clock.now()
        )

    def _commit(self, token: Any, people: Sequence[Returned]) -> None:
        now = self.services.clock.now()
        asked: list[Asked] = []

        def transaction(session: Session) -> None:
            asked[:] = ask_again(people, self.services, seen_in="stream", session=session)
            save_token(self.services.databases, self.place_id, token, now=now, session=session)

        self.services.databases.transact(transaction)
        self.on_saved()
        for one in asked:
            metrics.WATCH_JOBS.inc(RETURNS, one.job.kind)
        publish(asked, self.services)


def _next_batch(stream: ChangeStream[RawBSONDocument]) -> list[RawBSONDocument]:
    changes: list[RawBSONDocument] = []
    size = 0
    while len(changes) < BATCH_EVENTS and size < BATCH_BYTES and (change := stream.try_next()) is not None:
        changes.append(change)
        size += len(change.raw)
    return changes


def _written(change: RawBSONDocument) -> Written:
    """Return what *change* wrote; not the whole event, whose token repeats the key in digits."""
    key, document = change["documentKey"], change.get("fullDocument")
    fields = change.get("updateDescription", {}).get("updatedFields")
    parts = (key, document, fields)
    return Written(
        collection=change["ns"]["coll"],
        key=key["_id"],
        parts=tuple(bytes(part.raw) for part in parts if part is not None),
        document=document,
    )


def _token_of(stream: ChangeStream[RawBSONDocument]) -> Any:
    token = stream.resume_token
    return bson.decode(token.raw) if isinstance(token, RawBSONDocument) else token
