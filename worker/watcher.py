"""The watcher: change events of the application database become follow-up jobs, each exactly once.

The jobs of a batch and the resume token commit in one transaction, and only then are the jobs published; a crash
before the commit repeats the batch, a crash after it leaves the publishing to the sweeper.

Document shape (``watch_tokens``)::

    {_id: <database>, token: object, updated_at: date}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from compliance.errors import ResumeTokenLost, StoreUnavailable
from compliance.jobs.job import Job
from compliance.mongo import Document, Session, translate
from worker.job import submit
from worker.routing import FollowUp, coalesce, pipeline, route
from worker.services import Services
from worker.tasks import JOBS
from worker.telemetry import report_error

log = structlog.get_logger(__name__)

TOKENS = "watch_tokens"
BATCH_EVENTS = 200
AWAIT_MS = 100
IDLE_SAVE = timedelta(seconds=10)
HISTORY_LOST = (286, 280)
BASELINE = {"cause": "change"}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Follows the change stream of one application database."""

    services: Services
    should_stop: Callable[[], bool]

    def run(self) -> None:
        """Follow the stream until asked to stop; MongoDB may go away and come back meanwhile."""
        attempt = 0
        while not self.should_stop():
            try:
                self._follow()
                attempt = 0
            except OperationFailure as error:
                if error.code not in HISTORY_LOST:
                    raise translate(error) from None
                self._start_over()
            except (StoreUnavailable, PyMongoError) as error:
                attempt += 1
                log.warning("watch.interrupted", error=type(error).__name__)
                self.services.clock.sleep(timedelta(seconds=min(5.0, 0.2 * 2**attempt)))

    def _follow(self) -> None:
        databases = self.services.databases
        token = self._saved_token()
        if token is None:
            log.info("watch.baseline")
        with databases.app.watch(
            pipeline(self.services.data_map),
            resume_after=token,
            show_expanded_events=True,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH_EVENTS,
        ) as stream:
            if token is None:
                self._commit(stream.resume_token, [self._baseline()])
            log.info("watch.following", database=databases.name)
            self._read(stream)

    def _read(self, stream: ChangeStream[Document]) -> None:
        saved_at = self.services.clock.now()
        while not self.should_stop():
            changes = self._next_batch(stream)
            now = self.services.clock.now()
            if changes or now - saved_at > IDLE_SAVE:
                # Saved when idle too: a token that stands still falls off the end of the oplog.
                self._commit(stream.resume_token, coalesce(route(change, self.services.data_map) for change in changes))
                saved_at = now

    def _next_batch(self, stream: ChangeStream[Document]) -> Sequence[Mapping[str, Any]]:
        changes: list[Mapping[str, Any]] = []
        while len(changes) < BATCH_EVENTS and (change := stream.try_next()) is not None:
            changes.append(change)
        return changes

    def _commit(self, token: Mapping[str, Any] | None, follow_ups: Sequence[FollowUp]) -> None:
        now = self.services.clock.now()
        jobs: list[Job] = []

        def transaction(session: Session) -> None:
            jobs.clear()
            jobs.extend(self._record(found, session) for found in follow_ups)
            self.services.databases.compliance[TOKENS].update_one(
                {"_id": self.services.databases.name},
                {"$set": {"token": token, "updated_at": now}},
                upsert=True,
                session=session,
            )

        self.services.databases.transact(transaction)
        for job in jobs:
            log.info("watch.routed", kind=job.kind, request_id=job.request_id)
            self.services.publish(job)

    def _record(self, found: FollowUp, session: Session) -> Job:
        return submit(
            JOBS[found.kind],
            found.payload,
            request_id=found.request_id,
            origin="watcher",
            services=self.services,
            session=session,
        )

    def _saved_token(self) -> Mapping[str, Any] | None:
        saved = self.services.databases.compliance[TOKENS].find_one({"_id": self.services.databases.name})
        return saved["token"] if saved else None

    def _start_over(self) -> None:
        """Nobody can say what happened in the gap, so a person is told and everything is looked at."""
        lost = ResumeTokenLost(
            "the oplog no longer reaches back to the last change event; everything is checked instead"
        )
        log.error("watch.history_lost", database=self.services.databases.name)
        report_error(lost, kind="watcher", request_id="none")
        tokens = self.services.databases.compliance[TOKENS]
        tokens.update_one({"_id": self.services.databases.name}, {"$set": {"token": None}})

    def _baseline(self) -> FollowUp:
        moment = self.services.clock.now().isoformat()
        return FollowUp("health.check", f"watch-baseline-{moment}", BASELINE)
