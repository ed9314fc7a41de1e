"""The sealer's thread of the watcher: follows the inserts of the audit log, and seals them about once a second."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from bson.raw_bson import RawBSONDocument
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from compliance.audit.batch import MAX_LEAVES
from compliance.audit.guard import Guard
from compliance.audit.incident import Incident, Kind
from compliance.audit.keys import SigningKey
from compliance.audit.sealer import Sealer
from compliance.audit.seals import Seals
from compliance.audit.stored import RAW
from compliance.errors import ComplianceError, IntegrityError
from compliance.roles import AUDIT_LOG
from worker.addresses import Addresses
from worker.alarm import Alarm
from worker.anchors import AnchorLoop, load_anchors
from worker.services import Services
from worker.telemetry import metrics, report_error
from worker.tokens import UNUSABLE, is_to_come

log = structlog.get_logger(__name__)

SEALER = "sealer"
INSERTED = [{"$match": {"operationType": "insert", "ns.coll": AUDIT_LOG}}]
AWAIT_MS = 1  # what came is read at once, twice a second: to be woken for each write costs the server more
EVERY = timedelta(seconds=0.5)
CLOSE_EVERY_SECONDS = 60.0
PAUSE = timedelta(seconds=5)


def build_sealing(addresses: Addresses, services: Services) -> "Sealing":
    """Return what seals the audit log of *services*.

    Raises:
        ConfigurationError: When the key of the log is missing.
    """
    alarm = Alarm(services.databases)
    return Sealing(
        services=services,
        key=addresses.log_key(),
        guard=Guard(addresses.seal_guard()),
        alarm=lambda incident: alarm.ring([incident]),
    )


def build_anchors(services: Services) -> AnchorLoop | None:
    """Return what brings the checkpoints of *services* elsewhere, None where the settings name no place.

    Raises:
        ConfigurationError: When a place is described wrongly.
    """
    path = services.settings.anchors
    if path is None:
        return None
    alarm = Alarm(services.databases)
    return AnchorLoop(
        places=load_anchors(path, clock=services.clock),
        store=Seals(services.databases),
        policy=services.trust.policy,
        clock=services.clock,
        alarm=lambda incident: alarm.ring([incident]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Follows the audit log and seals it.

    Attributes:
        key: Signs checkpoints.
        alarm: Told of what is not in order.
        on_read: Called whenever the stream was read, also when nothing was there.
        on_sealed: Called behind every seal.
    """

    services: Services
    key: SigningKey
    guard: Guard
    alarm: Callable[[Incident], None]
    on_read: Callable[[], None] = lambda: None
    on_sealed: Callable[[], None] = lambda: None

    def follow(self, should_stop: Callable[[], bool]) -> None:
        """Seal until asked to stop; where the log is not as it was left, raise the alarm, and sign nothing."""
        try:
            self._follow(should_stop)
        except IntegrityError as error:
            self._report(Kind.FORK.value, str(error))
            self._pause()
        except (ComplianceError, PyMongoError):
            raise
        except Exception as error:
            log.exception("seal.failed")
            report_error(error, kind="seal", request_id="none")
            self._pause()

    def _pause(self) -> None:
        self.on_read()  # the process lives; a restart would not help
        self.services.clock.sleep(PAUSE)

    def _follow(self, should_stop: Callable[[], bool]) -> None:
        sealer = self._sealer()
        token = sealer.open()
        if token is not None and is_to_come(token, self.services.databases.server_time()):
            ahead = (
                "the last batch names a moment of the oplog that is to come; what is in the log is sealed as it is now"
            )
            self._report(Kind.WATCH_LOST.value, ahead)
            token = None
        try:
            self._seal(sealer, token, should_stop)
        except OperationFailure as error:
            if error.code not in UNUSABLE:
                raise
            lost = "the oplog no longer reaches back to the last seal; what is in the log is sealed as it is now"
            self._report(Kind.WATCH_LOST.value, lost)
            self._seal(sealer, None, should_stop)

    def _seal(self, sealer: Sealer, token: str | None, should_stop: Callable[[], bool]) -> None:
        audit = self.services.databases.audit.with_options(codec_options=RAW)
        resume = {"_data": token} if token is not None else None
        with audit.watch(INSERTED, resume_after=resume, max_await_time_ms=AWAIT_MS, batch_size=MAX_LEAVES) as stream:
            log.info("seal.following")
            if token is None:
                sealer.recover(_stand(stream), on_progress=self.on_read)
            closed_at = 0.0
            while not should_stop():
                is_more = self._read(stream, sealer)
                self.on_read()
                self._seal_pending(sealer)
                if time.monotonic() - closed_at >= CLOSE_EVERY_SECONDS:
                    sealer.close_past()
                    closed_at = time.monotonic()
                if not is_more and not should_stop():
                    self.services.clock.sleep(EVERY)
            self._seal_pending(sealer)

    def _read(self, stream: ChangeStream[RawBSONDocument], sealer: Sealer) -> bool:
        """Take what is there; return whether a batch is full."""
        while sealer.pending < MAX_LEAVES:
            change = stream.try_next()
            if change is None:
                return False
            sealer.take(change["fullDocument"], _token(change["_id"]))
        return True

    def _seal_pending(self, sealer: Sealer) -> None:
        count = sealer.pending
        sealer.seal()
        metrics.SEALED.inc(by=count - sealer.pending)
        self.on_sealed()

    def _sealer(self) -> Sealer:
        return Sealer(
            databases=self.services.databases,
            trust=self.services.trust,
            key=self.key,
            clock=self.services.clock,
            guard=self.guard,
            report=self._report,
        )

    def _report(self, kind: str, what: str) -> None:
        at = self.services.clock.now()
        self.alarm(Incident(kind=Kind(kind), what=what, at=at))


def _stand(stream: ChangeStream[RawBSONDocument]) -> str:
    """Return where *stream* stands.

    One that brings events at once says so behind the first of them only; their entries are in the log already.
    """
    if stream.resume_token is None:
        stream.try_next()
    return _token(stream.resume_token)


def _token(found: Mapping[str, Any] | None) -> str:
    if found is None:
        raise RuntimeError("a change stream that was opened has a token")
    return str(found["_data"])
