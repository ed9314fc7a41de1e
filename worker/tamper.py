"""Follows the audit database, and raises the alarm at whatever no process of ours does there.

The token is saved when the incidents are kept, so a crash repeats events and loses none; an event that is read twice is
one incident. What is an incident: ``compliance/audit/tamper.py``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from compliance.audit.incident import Incident, Kind
from compliance.audit.log import LENIENT
from compliance.audit.tamper import MAX_TRANSACTION, STAGES, Event, find_incidents, transaction_of
from compliance.mongo import Document
from worker.alarm import Alarm
from worker.services import Services
from worker.telemetry import metrics
from worker.tokens import HISTORY_LOST, find_token, save_token

log = structlog.get_logger(__name__)

AUDIT = "audit"
BATCH_EVENTS = 200
AWAIT_MS = 100
IDLE_SAVE = timedelta(seconds=10)
UNUSABLE = (*HISTORY_LOST, 260)  # the last: a token that no server wrote


@dataclass(frozen=True, slots=True)
class TamperWatch:
    """Follows the audit database.

    Attributes:
        on_read: Told whenever the stream was read, also when nothing was there.
        on_saved: Told when the token is saved.
    """

    services: Services
    should_stop: Callable[[], bool]
    on_read: Callable[[], None] = lambda: None
    on_saved: Callable[[], None] = lambda: None
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alarm", Alarm(self.services.databases))

    @property
    def token_id(self) -> str:
        """The id of the token: the name of the database."""
        return self.services.databases.audit.name

    def follow(self) -> None:
        """Follow until asked to stop, or until the stream ends because the database was dropped."""
        token = find_token(self.services.databases, self.token_id)
        try:
            self._follow(token)
        except OperationFailure as error:
            if token is None or error.code not in UNUSABLE:
                raise
            self._start_over(token)

    def _follow(self, token: Mapping[str, Any] | None) -> None:
        # An altered document must not end the stream, whatever is in it.
        database = self.services.databases.audit.with_options(codec_options=LENIENT)
        with database.watch(
            STAGES,
            start_after=token,  # unlike resume_after, also behind the end of a stream
            show_expanded_events=True,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH_EVENTS,
        ) as stream:
            if token is None:
                self._save(stream.resume_token)
            log.info("watch.following", database=database.name)
            self._read(stream)

    def _read(self, stream: ChangeStream[Document]) -> None:
        saved_at = self.services.clock.now()
        waiting: list[Event] = []
        incidents: list[Incident] = []
        for group in self._groups(stream):
            self.on_read()
            waiting.extend(group)
            incidents.extend(find_incidents(group, self.services.trust) if group else [])
            if group and len(waiting) < BATCH_EVENTS:
                continue
            now = self.services.clock.now()
            if waiting or now - saved_at > IDLE_SAVE:
                # Saved when idle too: a token that stands still falls off the end of the oplog.
                self._keep(incidents, waiting[-1]["_id"] if waiting else stream.resume_token, events=len(waiting))
                waiting, incidents, saved_at = [], [], now

    def _groups(self, stream: ChangeStream[Document]) -> Iterator[Sequence[Event]]:
        """Yield what belongs together: the events of one transaction, one other event, or nothing when none waits."""
        group: list[Event] = []
        while not self.should_stop():
            change = stream.try_next()
            if group and not (change and _belongs(change, group)):
                yield group
                group = []
            if change is not None:
                group.append(change)
                continue
            yield []
            if not stream.alive:
                return

    def _keep(self, incidents: Sequence[Incident], token: Mapping[str, Any] | None, *, events: int) -> None:
        if incidents:
            self.alarm.ring(incidents)
        self._save(token)
        metrics.WATCH_EVENTS.inc(AUDIT, by=events)

    def _save(self, token: Mapping[str, Any] | None) -> None:
        save_token(self.services.databases, self.token_id, token, now=self.services.clock.now())
        self.on_saved()

    def _start_over(self, token: Mapping[str, Any]) -> None:
        """Nobody can say what happened in the gap: that is an incident, too."""
        lost = Incident(
            kind=Kind.WATCH_LOST,
            what="the oplog no longer reaches back to the last change of the audit database that was looked at",
            at=self.services.databases.server_time(),
            event=str(token),
        )
        self._keep([lost], None, events=0)


def _belongs(change: Event, group: Sequence[Event]) -> bool:
    transaction = transaction_of(change)
    return transaction is not None and transaction == transaction_of(group[0]) and len(group) < MAX_TRANSACTION
