"""Follows the audit database, and raises the alarm at whatever no process of ours does there.

What is an incident: ``compliance/audit/tamper.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from compliance.audit.incident import Incident, Kind
from compliance.audit.log import LENIENT
from compliance.audit.tamper import MAX_TRANSACTION, STAGES, Event, find_incidents, transaction_of
from compliance.mongo import Document
from worker.lookout import Lookout, Place
from worker.tokens import UNUSABLE, is_to_come

log = structlog.get_logger(__name__)

AUDIT = "audit"
BATCH_EVENTS = 200
AWAIT_MS = 100
IDLE_SAVE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class TamperWatch:
    """Follows the audit database."""

    lookout: Lookout

    def follow(self) -> None:
        """Follow until asked to stop, or until the stream ends because the database was dropped."""
        token = min(self.lookout.places(), key=_moment, default=None)
        if token is not None and is_to_come(_moment(token), self.lookout.services.databases.server_time()):
            self._give_up(token)  # the server would wait for that time, and show nothing before
            return
        try:
            self._follow(token)
        except OperationFailure as error:
            if token is None or error.code not in UNUSABLE:
                raise
            self._give_up(token)

    def _give_up(self, token: Place) -> None:
        """Go on from where somebody else stood; where nobody did, start over."""
        others = [place for place in self.lookout.places() if place != token]
        if others:
            self.lookout.go_on_from(min(others, key=_moment))
        else:
            self._start_over(token)

    def _follow(self, token: Place | None) -> None:
        # An altered document must not end the stream, whatever is in it.
        database = self.lookout.services.databases.audit.with_options(codec_options=LENIENT)
        with database.watch(
            STAGES,
            start_after=token,  # unlike resume_after, also behind the end of a stream
            show_expanded_events=True,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH_EVENTS,
        ) as stream:
            if token is None and stream.resume_token is not None:  # else with the events that it brings at once
                self.lookout.save(stream.resume_token)
            log.info("watch.following", database=database.name)
            self._read(stream)

    def _read(self, stream: ChangeStream[Document]) -> None:
        services = self.lookout.services
        saved_at = services.clock.now()
        waiting: list[Event] = []
        incidents: list[Incident] = []
        for group in self._groups(stream):
            self.lookout.on_read()
            waiting.extend(group)
            incidents.extend(find_incidents(group, services.trust) if group else [])
            if group and len(waiting) < BATCH_EVENTS:
                continue
            now = services.clock.now()
            if waiting or now - saved_at > IDLE_SAVE:
                # Saved when idle too: a token that stands still falls off the end of the oplog.
                token = waiting[-1]["_id"] if waiting else stream.resume_token
                self.lookout.keep(incidents, token, events=len(waiting))
                waiting, incidents, saved_at = [], [], now

    def _groups(self, stream: ChangeStream[Document]) -> Iterator[Sequence[Event]]:
        """Yield what belongs together: the events of one transaction, one other event, or nothing when none waits."""
        group: list[Event] = []
        while not self.lookout.should_stop():
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

    def _start_over(self, token: Place) -> None:
        """Nobody can say what happened in the gap: that is an incident, too."""
        lost = Incident(
            kind=Kind.WATCH_LOST,
            what="the oplog no longer reaches back to the last change of the audit database that was looked at",
            at=self.lookout.services.databases.server_time(),
            event=str(token),
        )
        self.lookout.keep([lost], None, events=0)


def _moment(token: Place) -> str:
    """Return what tokens of one deployment are ordered by: the hexadecimal digits begin with the time."""
    return str(token.get("_data", ""))


def _belongs(change: Event, group: Sequence[Event]) -> bool:
    transaction = transaction_of(change)
    return transaction is not None and transaction == transaction_of(group[0]) and len(group) < MAX_TRANSACTION
