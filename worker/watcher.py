"""The watcher: change events become follow-up jobs, each exactly once.

The jobs of a batch and the resume token commit in one transaction, and only then are the jobs published; a crash
before the commit repeats the batch, a crash after it leaves the publishing to the sweeper.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from compliance.clock import Clock
from compliance.errors import DuplicateEntry, ResumeTokenLost, StepRefused, StoreUnavailable
from compliance.jobs.job import Job, Prefix
from compliance.mongo import Db, Document, Session, translate
from compliance.roles import OUTBOX
from worker.anchors import AnchorLoop
from worker.comeback import Comeback, streams_of_returns
from worker.intake import submit
from worker.liveness import Chorus, Heartbeat
from worker.lookout import Lookout, places_file
from worker.oplog import OPLOG, PLACE_ID, OplogWatch
from worker.outbox import Outbox
from worker.routing import FollowUp, Source, coalesce, route, sources
from worker.sealing import SEALER, Sealing
from worker.services import Services
from worker.tamper import AUDIT, TamperWatch
from worker.tasks import JOBS
from worker.telemetry import metrics, report_error
from worker.telemetry.ledger import TokenAges
from worker.tokens import HISTORY_LOST, find_token, save_token

log = structlog.get_logger(__name__)

BATCH_EVENTS = 200
AWAIT_MS = 100
IDLE_SAVE = timedelta(seconds=10)
PAUSE = timedelta(seconds=1)
REFUSED_LIMIT = timedelta(minutes=1)
BASELINE = {"cause": "change"}
ANCHORS = "anchors"


def watch_all(
    services: Services,
    should_stop: Callable[[], bool],
    *,
    heartbeat: Heartbeat | None = None,
    ages: TokenAges | None = None,
    sealing: Sealing | None = None,
    anchors: AnchorLoop | None = None,
    places: Path | None = None,
) -> None:
    """Follow every source of the data map, the outbox and the audit database, each in a thread, until asked to stop.

    Args:
        services: The services.
        should_stop: Asked all the time.
        heartbeat: Beats while every stream is read.
        ages: Told when a stream saves its token.
        sealing: What seals the audit log, where this watcher does.
        anchors: What brings checkpoints elsewhere; a place that is slow silences no heartbeat.
        places: The file outside the database that remembers how far the alarm has looked.

    Raises:
        ComplianceError: What one of them could not recover from; the others are stopped.
    """
    failed = threading.Event()

    def ends() -> bool:
        return should_stop() or failed.is_set()

    followed = sources(services.data_map)
    others = (OUTBOX, AUDIT, OPLOG, *((SEALER,) if sealing else ()), *streams_of_returns(services))
    chorus = Chorus(heartbeat or Heartbeat(None), (*others, *(source.database for source in followed)))
    mark = (ages or TokenAges()).mark
    watchers = [Watcher(services, source, ends, chorus.hear, mark) for source in followed]
    outbox = Outbox(services, on_read=lambda: chorus.hear(OUTBOX))
    follows = {OUTBOX: lambda: outbox.follow(ends)}
    for stream, place_id, watch in (
        (AUDIT, services.databases.audit.name, TamperWatch),
        (OPLOG, PLACE_ID, OplogWatch),
    ):
        lookout = Lookout(
            services=services,
            stream=stream,
            place_id=place_id,
            should_stop=ends,
            file=places_file(places),
            on_read=partial(chorus.hear, stream),
            on_saved=partial(mark, stream),
        )
        mark(stream)
        follows[stream] = watch(lookout).follow
    follows |= {
        stream: Comeback(services, ends, on_read=partial(chorus.hear, stream), on_saved=partial(mark, stream)).follow
        for stream in streams_of_returns(services)
    }
    if sealing is not None:
        sealer = replace(sealing, on_read=lambda: chorus.hear(SEALER))
        follows[SEALER] = lambda: sealer.follow(ends)
    if anchors is not None:
        follows[ANCHORS] = lambda: anchors.follow(ends)
    with ThreadPoolExecutor(len(watchers) + len(follows)) as pool:
        running = [pool.submit(watcher.run) for watcher in watchers]
        running += [pool.submit(persevere, stream, follow, services.clock, ends) for stream, follow in follows.items()]
        for ended in as_completed(running):
            if ended.exception() is not None:
                failed.set()
    for ended in running:
        ended.result()


def persevere(stream: str, follow: Callable[[], None], clock: Clock, should_stop: Callable[[], bool]) -> None:
    """Call *follow* of *stream* again and again until asked to stop; MongoDB may go away and come back meanwhile.

    Raises:
        ComplianceError: When the server refuses for longer than a minute; while it starts it refuses much.
    """
    refused_since: datetime | None = None
    while not should_stop():
        began = clock.now()
        try:
            follow()
        except (StoreUnavailable, StepRefused, DuplicateEntry, PyMongoError) as error:
            ours = translate(error) if isinstance(error, PyMongoError) else error
            log.warning("watch.interrupted", stream=stream, error=type(error).__name__)
            metrics.INTERRUPTIONS.inc(stream)
            now = clock.now()
            if isinstance(ours, StoreUnavailable) or now - began > REFUSED_LIMIT:
                refused_since = None
            else:
                refused_since = refused_since or began
                if now - refused_since > REFUSED_LIMIT:
                    raise ours from None
            clock.sleep(PAUSE)


@dataclass(frozen=True, slots=True)
class Watcher:
    """Follows one change stream; see ``watch_all``.

    Attributes:
        on_read: Told the name of the stream whenever it was read, also when nothing was there.
        on_saved: Told the name of the stream when it begins, and when its token is saved.
    """

    services: Services
    source: Source
    should_stop: Callable[[], bool]
    on_read: Callable[[str], None] = lambda _: None
    on_saved: Callable[[str], None] = lambda _: None

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self.source.database

    @property
    def database(self) -> Db:
        """The database whose changes are followed; its name is the id of the token."""
        databases = self.services.databases
        return databases.app if self.source.database == "app" else databases.compliance

    def run(self) -> None:
        """Follow the stream until asked to stop; see ``persevere``."""
        self.on_saved(self.name)
        persevere(self.name, self._follow_or_start_over, self.services.clock, self.should_stop)

    def _follow_or_start_over(self) -> None:
        try:
            self._follow()
        except OperationFailure as error:
            if error.code not in HISTORY_LOST:
                raise
            self._start_over()

    def _follow(self) -> None:
        token = find_token(self.services.databases, self.database.name)
        with self.database.watch(
            self.source.stages,
            self.source.full_document,
            resume_after=token,
            show_expanded_events=True,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH_EVENTS,
        ) as stream:
            if token is None:
                self._commit(stream.resume_token, self._baseline())
            log.info("watch.following", database=self.database.name)
            self._read(stream)

    def _read(self, stream: ChangeStream[Document]) -> None:
        saved_at = self.services.clock.now()
        while not self.should_stop():
            changes = self._next_batch(stream)
            self.on_read(self.name)
            now = self.services.clock.now()
            if changes or now - saved_at > IDLE_SAVE:
                # Saved when idle too: a token that stands still falls off the end of the oplog.
                self._commit(stream.resume_token, coalesce(route(change, self.services.data_map) for change in changes))
                metrics.WATCH_EVENTS.inc(self.name, by=len(changes))
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
            save_token(self.services.databases, self.database.name, token, now=now, session=session)

        self.services.databases.transact(transaction)
        self.on_saved(self.name)
        for job in jobs:
            metrics.WATCH_JOBS.inc(self.name, job.kind)
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

    def _start_over(self) -> None:
        """Nobody can say what happened in the gap, so a person is told and everything is looked at."""
        lost = ResumeTokenLost(
            "the oplog no longer reaches back to the last change event; everything is checked instead"
        )
        log.error("watch.history_lost", database=self.database.name)
        report_error(lost, kind="watcher", request_id="none")
        save_token(self.services.databases, self.database.name, None, now=self.services.clock.now())

    def _baseline(self) -> list[FollowUp]:
        """Look at everything once; one source asks for it."""
        if self.source.database != "app":
            return []
        return [FollowUp("health.check", f"{Prefix.WATCH}baseline-{self.services.clock.now().isoformat()}", BASELINE)]
