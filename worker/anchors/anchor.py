"""What an anchor is, and what it needs of the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from compliance.audit.checkpoint import Checkpoint, Policy, verify_growth
from compliance.audit.merkle import NodeReader, prove_consistency
from compliance.clock import Clock
from compliance.errors import InvalidProof, LogForked, LogRolledBack
from compliance.registry import Registry

NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"


class SignedNotes(Protocol):
    """The checkpoints of the logs; ``compliance.audit.checkpoints.Checkpoints`` are some."""

    def note(self, log: str) -> bytes | None:
        """Return the newest signed checkpoint, None where there is none yet."""
        ...

    def add_cosignatures(self, log: str, size: int, lines: bytes) -> None:
        """Keep the signature *lines* of a witness for the checkpoint of *size*; a repeat MUST be harmless."""
        ...


class SealedLogs(Protocol):
    """The logs and what they signed; ``compliance.audit.seals.Seals`` are some."""

    @property
    def checkpoints(self) -> SignedNotes:
        """What they signed."""
        ...

    def logs(self) -> Iterable[str]:
        """Return the name of every log."""
        ...

    def nodes(self, log: str, size: int) -> NodeReader:
        """Return a reader of the nodes of the tree of *size*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest checkpoint of a log, and the tree behind it.

    Attributes:
        note: The signed checkpoint; its signatures are verified.
        policy: Whose signatures count, also under what an anchor holds.
    """

    note: bytes
    checkpoint: Checkpoint
    node: NodeReader
    policy: Policy

    def proof_from(self, size: int) -> list[bytes]:
        """Return the proof that the log only grew since it had *size* entries."""
        return prove_consistency(size, self.checkpoint.size, node=self.node)

    def check_continues(self, older: Checkpoint, *, name: str) -> None:
        """Check that the log only grew since *older*, which the anchor *name* holds.

        Raises:
            LogRolledBack: When the log has fewer entries.
            LogForked: When it has others.
        """
        origin, size = self.checkpoint.origin, self.checkpoint.size
        if older.size > size:
            raise LogRolledBack(f"anchor {name} holds size {older.size} of {origin}, which has {size} entries only")
        try:
            verify_growth(older, self.checkpoint, proof=self.proof_from(older.size))
        except InvalidProof:
            raise LogForked(
                f"anchor {name} holds size {older.size} of {origin} with other entries; size {size} does not follow"
            ) from None


class Anchor(Protocol):
    """A place that keeps checkpoints."""

    def push(self, head: Head) -> bytes:
        """Bring *head* there, and return signature lines if the place gave some.

        MUST end in bounded time, MUST be harmless when repeated, and MUST NOT put *head* in the place of a checkpoint
        that it does not continue.

        Raises:
            AnchorUnavailable: When it may succeed later.
            ConfigurationError: When it cannot succeed as the anchor is described.
            LogForked: When the place holds another log of that name.
            LogRolledBack: When it holds a longer one.
            IntegrityError: When anything else about it shows that somebody is lying.
        """
        ...


class AnchorOptions(BaseModel):
    """What the file of anchors says about one; each kind adds its own fields.

    Attributes:
        name: In logs and metrics.
        kind: The name of the kind.
        every_seconds: At least so long from one checkpoint to the next; what is cut off within goes unnoticed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=NAME)]
    kind: str
    every_seconds: Annotated[float, Field(ge=1, le=86_400)] = 10

    def open(self, clock: Clock) -> Anchor:
        """Return the anchor; nothing is connected or written yet."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An anchor as it is used."""

    name: str
    anchor: Anchor
    every: timedelta


KINDS: Registry[type[AnchorOptions]] = Registry("kind of anchor")
