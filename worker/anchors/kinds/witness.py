"""A witness: somebody else's server that cosigns what continues what it cosigned before, and nothing else.

Source: C2SP tlog-witness (add-checkpoint).
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import structlog
from pydantic import AfterValidator, Field, FilePath

from compliance.audit.keys import Verifier, parse_vkey
from compliance.audit.witness import Cosignature, KnownSize, check_witness, format_request, read_answer
from compliance.clock import Clock
from compliance.errors import AnchorUnavailable, ConfigurationError
from worker.anchors.anchor import KINDS, AnchorOptions, Head
from worker.remote import NoAnswer, Remote, Url

log = structlog.get_logger(__name__)

ATTEMPTS = 3
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@dataclass(slots=True, kw_only=True)
class WitnessAnchor:
    """Asks a witness, and remembers how far it has cosigned; after a start it learns that from the witness.

    Attributes:
        known: The size that the witness has of each log, as far as we know.
    """

    name: str
    witness: Verifier
    server: Remote
    clock: Clock
    known: dict[str, int] = field(default_factory=dict)

    def push(self, head: Head) -> bytes:
        """Have *head* cosigned and return the signature lines; see ``Anchor``."""
        origin, size = head.checkpoint.origin, head.checkpoint.size
        for _ in range(ATTEMPTS):
            old_size = self.known.get(origin, 0)
            match self._ask(head, old_size if old_size <= size else 0):
                case Cosignature() as cosignature:
                    self.known[origin] = size
                    return cosignature.lines
                case KnownSize(known):
                    if known < old_size:
                        log.warning("anchor.forgot", anchor=self.name, log=origin, size=known, before=old_size)
                    self.known[origin] = known
        raise AnchorUnavailable(f"anchor {self.name} gave another size with every answer")

    def _ask(self, head: Head, old_size: int) -> Cosignature | KnownSize:
        body = format_request(head.note, old_size=old_size, proof=head.proof_from(old_size))
        try:
            answer = self.server.post("add-checkpoint", body, TEXT)
        except NoAnswer as error:
            raise AnchorUnavailable(f"anchor {self.name} {error}") from None
        return read_answer(
            answer,
            note=head.note,
            checkpoint=head.checkpoint,
            old_size=old_size,
            witness=self.witness,
            now=self.clock.now(),
        )


def _of_witness(vkey: str) -> str:
    try:
        check_witness(parse_vkey(vkey))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return vkey


class WitnessOptions(AnchorOptions):
    """The submission prefix of a witness, and its key as its operator published it."""

    kind: Literal["witness"]
    url: Url
    vkey: Annotated[str, AfterValidator(_of_witness)]
    ca_file: FilePath | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10

    def open(self, clock: Clock) -> WitnessAnchor:
        """Return the anchor."""
        server = Remote(url=self.url, ca_file=self.ca_file, timeout_seconds=self.timeout_seconds)
        return WitnessAnchor(name=self.name, witness=parse_vkey(self.vkey), server=server, clock=clock)


KINDS.add("witness", WitnessOptions)
