"""Bring the newest checkpoint of each log to every anchor, again and again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog
from pymongo.errors import PyMongoError

from compliance.audit.checkpoint import Checkpoint, Policy, open_checkpoint
from compliance.audit.incident import Incident, Kind
from compliance.clock import Clock
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ComplianceError,
    ConfigurationError,
    IntegrityError,
    InvalidProof,
    LogForked,
    LogRolledBack,
    StepRefused,
    StoreUnavailable,
)
from worker.anchors.anchor import Head, Place, SealedLogs
from worker.telemetry import metrics, report_error

log = structlog.get_logger(__name__)

TURN = timedelta(seconds=1)
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
TAKEN = "taken"
CRASHED = "crashed"
OUTCOMES: tuple[tuple[type[ComplianceError], str], ...] = (
    (LogForked, "fork"),
    (LogRolledBack, "rollback"),
    (CheckpointRefused, "refused"),
    (InvalidProof, "invalid"),
    (ConfigurationError, "misconfigured"),
    (AnchorUnavailable, "failed"),
)
ALARMS = {"fork": Kind.FORK, "rollback": Kind.ROLLBACK}
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Standing:
    """How far one anchor is with one log."""

    pushed: Checkpoint | None = None
    due_at: datetime = _NEVER
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLoop:
    """Pushes what is new; call ``turn`` every second from one thread.

    Attributes:
        places: The anchors.
        store: Where checkpoints come from and cosignatures go.
        policy: Whose signatures count for a log, by its name.
        clock: The time.
        alarm: Told of forks and rollbacks, every time that one is met.
        on_turn: Called behind every turn.
    """

    places: Sequence[Place]
    store: SealedLogs
    policy: Callable[[str], Policy]
    clock: Clock
    alarm: Callable[[Incident], None]
    on_turn: Callable[[], None] = lambda: None
    _standings: dict[tuple[str, str], Standing] = field(default_factory=dict)

    def follow(self, should_stop: Callable[[], bool]) -> None:
        """Turn every second until asked to stop; see ``turn``."""
        while not should_stop():
            self.turn()
            self.on_turn()
            self.clock.sleep(TURN)

    def turn(self) -> None:
        """Push to every anchor that is due; it takes at most the time limits of all of them together.

        One that fails is told of and tried again later; it keeps no other from its turn.

        Raises:
            StoreUnavailable: When the store does not answer.
        """
        for name in self.store.logs():
            for place in self.places:
                standing = self._standings.setdefault((name, place.name), Standing())
                if self.clock.now() >= standing.due_at:
                    self._try(place, name, standing)

    def _try(self, place: Place, name: str, standing: Standing) -> None:
        try:
            pushed = self._push(place, name, standing)
        except (StoreUnavailable, StepRefused, PyMongoError):
            raise
        except Exception as error:  # noqa: BLE001 - one anchor must not keep the others waiting
            standing.failures += 1
            standing.due_at = self.clock.now() + pause(standing.failures)
            self._tell(error, place.name, name)
        else:
            if pushed:
                standing.failures = 0
                standing.due_at = self.clock.now() + place.every
                metrics.ANCHORED.inc(place.name, TAKEN)

    def _push(self, place: Place, name: str, standing: Standing) -> bool:
        """Push the newest checkpoint, and return whether there was a new one."""
        head = self._head(name)
        if head is None or head.checkpoint == standing.pushed:
            return False
        if standing.pushed is not None:  # a command cannot tell us what it has
            head.check_continues(standing.pushed, name=place.name)
        lines = place.anchor.push(head)
        if lines:
            self.store.checkpoints.add_cosignatures(name, head.checkpoint.size, lines)
        standing.pushed = head.checkpoint
        log.info("anchor.taken", anchor=place.name, log=name, size=head.checkpoint.size)
        return True

    def _head(self, name: str) -> Head | None:
        note = self.store.checkpoints.note(name)
        if note is None:
            return None
        policy = replace(self.policy(name), quorum=0)  # the witnesses are yet to sign
        checkpoint = open_checkpoint(note, policy=policy).checkpoint
        return Head(note=note, checkpoint=checkpoint, node=self.store.nodes(name, checkpoint.size), policy=policy)

    def _tell(self, error: Exception, anchor: str, name: str) -> None:
        outcome = outcome_of(error)
        metrics.ANCHORED.inc(anchor, outcome)
        reason = str(error) if isinstance(error, ComplianceError) else type(error).__name__
        if isinstance(error, IntegrityError):
            log.error("anchor.conflict", kind=outcome, anchor=anchor, log=name, reason=reason)
        else:
            log.warning("anchor.failed", kind=outcome, anchor=anchor, log=name, reason=reason)
        report_error(error, kind=f"anchor/{anchor}", request_id="none")
        kind = ALARMS.get(outcome)
        if kind is not None:
            self.alarm(Incident(kind=kind, what=f"{anchor}: {reason}", at=self.clock.now()))


def pause(failures: int) -> timedelta:
    """Return how long to wait after that many failures in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(failures - 1, 20)))


def outcome_of(error: Exception) -> str:
    """Return what a failed push counts as."""
    return next((outcome for kind, outcome in OUTCOMES if isinstance(error, kind)), CRASHED)
