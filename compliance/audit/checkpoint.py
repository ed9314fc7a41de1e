"""Checkpoints: the signed statement of a log what its size and root hash are, and whom to believe it.

Shape of the text::

    <origin>
    <size>
    <root hash in base64>

Source: C2SP tlog-checkpoint; C2SP tlog-proof (Verifying a tlog proof, steps 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compliance.audit.keys import KeyType, SigningKey, Verifier, is_key_name
from compliance.audit.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from compliance.audit.note import Signature, open_note, sign_note
from compliance.audit.wire import MAX_SIZE, decode_decimal, decode_hash, encode_base64
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof

_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a log.

    Attributes:
        origin: The name of the log.
        root: The root hash of its first *size* entries.
        extensions: Lines of another log that we do not know; ours writes none, for nobody could audit them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Whom to believe about which log.

    Attributes:
        origin: The only log that is accepted.
        keys: Its keys, several while one replaces another; one of them must have signed.
        witnesses: Cosigners that watch the log for us.
        quorum: How many of them must have signed.

    Raises:
        ConfigurationError: When there is no key, the quorum cannot be reached, or one key would count twice.
    """

    origin: str
    keys: tuple[Verifier, ...]
    witnesses: tuple[Verifier, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if not self.keys:  # without this, a checkpoint that nobody signed could be one that everybody signed
            raise ConfigurationError("a policy needs a key of the log")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise ConfigurationError(f"{len(self.witnesses)} witnesses cannot be a quorum of {self.quorum}")
        if any(witness.kind is not KeyType.COSIGNATURE_V1 for witness in self.witnesses):
            raise ConfigurationError("the key of a witness is of type 0x04")
        log, witnesses = ({key.public_key for key in keys} for keys in (self.keys, self.witnesses))
        if len(witnesses) < len(self.witnesses) or log & witnesses:
            raise ConfigurationError("each witness needs a key of its own, which is not the log's")


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint that satisfied a policy, and by whose signatures."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]


def sign_checkpoint(checkpoint: Checkpoint, keys: Sequence[SigningKey]) -> bytes:
    """Return *checkpoint* as a note signed by *keys* of the log.

    MUST only be called for a tree that grew from every one signed before: what was signed cannot be taken back.

    Raises:
        ValueError: When *checkpoint* is not one that a log should write.
    """
    return sign_note(format_checkpoint(checkpoint), keys)


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the text of *checkpoint*.

    Raises:
        ValueError: When the origin could not name a key, size and root are impossible, or there are extensions.
    """
    if not is_key_name(checkpoint.origin):
        raise ValueError("an origin is not empty and holds no space, plus sign or control character")
    if not 0 <= checkpoint.size <= MAX_SIZE or len(checkpoint.root) != HASH_BYTES or not _is_possible(checkpoint):
        raise ValueError(f"no tree of size {checkpoint.size} has this root hash")
    if checkpoint.extensions:
        raise ValueError("our checkpoints have no extension lines")
    return f"{checkpoint.origin}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Return what *text* of a note states; who signed it is not looked at here.

    Raises:
        MalformedProof: When *text* is not that of a checkpoint.
    """
    *lines, last = text.split("\n")
    if last or len(lines) < _LINES or not all(lines):
        raise MalformedProof("a checkpoint is at least three lines, none of them empty")
    origin, size, root, *extensions = lines
    checkpoint = Checkpoint(
        origin=origin,
        size=decode_decimal(size, what="the size of a checkpoint"),
        root=decode_hash(root, what="the root hash of a checkpoint"),
        extensions=tuple(extensions),
    )
    if not _is_possible(checkpoint):
        raise MalformedProof("no tree of size 0 has this root hash")
    return checkpoint


def open_checkpoint(note: bytes, *, policy: Policy) -> SignedCheckpoint:
    """Return the checkpoint of *note* if *policy* says to believe it.

    Raises:
        MalformedProof: When *note* is not a signed checkpoint.
        InvalidProof: When it is of another log, or not signed by a key of the log and a quorum of witnesses.
    """
    opened = open_note(note, (*policy.keys, *policy.witnesses))
    checkpoint = parse_checkpoint(opened.text)
    if checkpoint.origin != policy.origin:
        raise InvalidProof(f"the checkpoint is not of {policy.origin}")
    signed = {signature.verifier for signature in opened.signatures}
    if not signed.intersection(policy.keys):
        raise InvalidProof(f"no key of {policy.origin} signed the checkpoint")
    if len(signed.intersection(policy.witnesses)) < policy.quorum:
        raise InvalidProof(f"fewer than {policy.quorum} witnesses signed the checkpoint of size {checkpoint.size}")
    return SignedCheckpoint(checkpoint, opened.signatures)


def verify_growth(older: Checkpoint, newer: Checkpoint, *, proof: Sequence[bytes]) -> None:
    """Check that the log only grew from *older* to *newer*.

    Raises:
        InvalidProof: When they are of two logs, or *proof* does not show that one is the beginning of the other.
    """
    if older.origin != newer.origin:
        raise InvalidProof("two checkpoints of different logs cannot be consistent")
    verify_consistency(proof, first=older.size, first_root=older.root, second=newer.size, second_root=newer.root)


def _is_possible(checkpoint: Checkpoint) -> bool:
    return checkpoint.size > 0 or checkpoint.root == EMPTY_ROOT
