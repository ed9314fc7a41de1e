"""Ask a witness for its cosignature: the request, and what the answer means; sending them is the caller's.

Request::

    old <size of the last checkpoint that the witness cosigned>
    <hash of the consistency proof in base64, one line for each>

    <signed checkpoint>

Source: C2SP tlog-witness (add-checkpoint); C2SP tlog-cosignature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus

from compliance.audit.checkpoint import Checkpoint
from compliance.audit.keys import KeyType, Verifier
from compliance.audit.note import SignatureLine, add_lines, open_note, parse_note
from compliance.audit.wire import decode_decimal, encode_base64
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ConfigurationError,
    InvalidProof,
    LogForked,
    LogRolledBack,
    MalformedProof,
)

SIZE_TYPE = "text/x.tlog.size"
MAX_PROOF_LINES = 63
MAX_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a witness answered.

    Attributes:
        content_type: The media type, None where there was none.
    """

    status: int
    content_type: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Cosignature:
    """The signature lines of the witness, and when it says to have signed."""

    lines: bytes
    cosigned_at: datetime


@dataclass(frozen=True, slots=True)
class KnownSize:
    """The witness knows the log up to another size, and wants the proof from there."""

    size: int


def check_witness(verifier: Verifier) -> Verifier:
    """Return *verifier* if it can be that of a witness.

    Raises:
        ConfigurationError: When its signatures say no time.
    """
    if verifier.kind is not KeyType.COSIGNATURE_V1:
        raise ConfigurationError("the key of a witness is of type 0x04")
    return verifier


def format_request(note: bytes, *, old_size: int, proof: Sequence[bytes]) -> bytes:
    """Return the body that asks to cosign *note*.

    Args:
        note: The signed checkpoint.
        old_size: How large the log was when the witness cosigned it last; zero where that is not known.
        proof: That the log only grew since.

    Raises:
        ValueError: When *proof* has more hashes than a witness takes.
    """
    if len(proof) > MAX_PROOF_LINES:
        raise ValueError(f"a witness takes at most {MAX_PROOF_LINES} hashes")
    return "\n".join([f"old {old_size}", *map(encode_base64, proof), "", ""]).encode() + note


def read_answer(
    answer: Answer, *, note: bytes, checkpoint: Checkpoint, old_size: int, witness: Verifier, now: datetime
) -> Cosignature | KnownSize:
    """Return what *answer* to the request for *note*, with the proof from *old_size*, says.

    Args:
        answer: What came.
        note: What was sent.
        checkpoint: What *note* states.
        old_size: What was sent.
        witness: Its key; whatever others signed is left out.
        now: The time; a cosignature from another one is not believed.

    Raises:
        LogForked: When the witness cosigned another log of this name.
        LogRolledBack: When it cosigned a longer one.
        CheckpointRefused: When it does not take the key that signed.
        ConfigurationError: When it does not know the log, or not the protocol.
        InvalidProof: When the cosignature is not by *witness* over *note*, or not of now.
        AnchorUnavailable: When it answered anything else.
    """
    match answer.status:
        case HTTPStatus.OK:
            return _read_lines(answer.body, note=note, witness=witness, now=now)
        case HTTPStatus.CONFLICT:
            return _read_conflict(answer, checkpoint=checkpoint, old_size=old_size, name=witness.name)
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            raise LogForked(
                f"witness {witness.name} cosigned size {old_size} of {checkpoint.origin} with other entries; "
                f"size {checkpoint.size} does not continue it"
            )
        case HTTPStatus.FORBIDDEN:
            raise CheckpointRefused(f"witness {witness.name} knows no key that signed {checkpoint.origin}")
        case HTTPStatus.NOT_FOUND:
            raise ConfigurationError(
                f"witness {witness.name} does not know {checkpoint.origin}; register the log there"
            )
        case HTTPStatus.BAD_REQUEST:
            raise ConfigurationError(f"witness {witness.name} does not understand the request; is its url that prefix?")
    raise AnchorUnavailable(f"witness {witness.name} answered with status {answer.status}")


def _read_lines(body: bytes, *, note: bytes, witness: Verifier, now: datetime) -> Cosignature:
    text, _ = parse_note(note)
    answered = f"{text}\n".encode() + body
    (signature,) = open_note(answered, [witness]).signatures
    moment = signature.cosigned_at
    if moment is None or abs(moment - now) > MAX_SKEW:
        raise InvalidProof(f"witness {witness.name} cosigned at a time that is not now; look at its clock and ours")
    own = [line for line in parse_note(answered)[1] if _is_by(line, witness)]
    lines = "".join(map(str, own)).encode()
    add_lines(note, lines)
    return Cosignature(lines, moment)


def _is_by(line: SignatureLine, witness: Verifier) -> bool:
    return (line.name, line.key_id) == (witness.name, witness.key_id)


def _read_conflict(answer: Answer, *, checkpoint: Checkpoint, old_size: int, name: str) -> KnownSize:
    """Tell a size that only has to be sent from a log that is not the one that was cosigned."""
    if answer.content_type == SIZE_TYPE:
        size = _read_size(answer.body)
        if size > checkpoint.size:
            raise LogRolledBack(
                f"witness {name} cosigned size {size} of {checkpoint.origin}, which has {checkpoint.size} entries only"
            )
        if size != old_size:
            return KnownSize(size)
    if old_size == checkpoint.size:
        raise LogForked(f"witness {name} cosigned size {old_size} of {checkpoint.origin} with other entries")
    raise AnchorUnavailable(f"witness {name} refused the size that it gave itself")


def _read_size(body: bytes) -> int:
    if not body.endswith(b"\n") or not body.isascii():
        raise MalformedProof("the size that a witness has is no line")
    return decode_decimal(body.decode()[:-1], what="the size that a witness has")
