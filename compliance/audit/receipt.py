"""Receipts: a file that proves to anybody, offline, that an entry is in the log.

Shape::

    c2sp.org/tlog-proof@v1
    extra <base64 of the leaf>
    index <number of the leaf>
    <hash in base64, one line for each>

    <signed checkpoint>

Ours carry the leaf in the ``extra`` line, so that the file verifies alone. The format does not authenticate that line;
here the proof does, for the hash of the leaf is what it starts from.

Source: C2SP tlog-proof.
"""

from dataclasses import dataclass

from compliance.audit.checkpoint import Policy, SignedCheckpoint, open_checkpoint, parse_checkpoint
from compliance.audit.merkle import NodeReader, leaf_hash, prove_inclusion, verify_inclusion
from compliance.audit.note import parse_note
from compliance.audit.wire import decode_base64, decode_decimal, decode_hash, encode_base64
from compliance.errors import MalformedProof

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"

_EXTRA = "extra "
_INDEX = "index "


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt as it came: nothing in it is verified yet.

    Attributes:
        extra: What the ``extra`` line holds; None without one.
        checkpoint: The signed note, byte by byte.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """What a receipt proved: these bytes are entry *index* of the log that signed."""

    leaf: bytes
    index: int
    signed: SignedCheckpoint


def make_receipt(leaf: bytes, *, index: int, node: NodeReader, checkpoint: bytes) -> bytes:
    """Return the receipt of entry *index*, whose bytes are *leaf*, in the log as *checkpoint* signed it.

    Raises:
        ValueError: When *leaf* is empty, or the log of that checkpoint has no such entry.
        InvalidProof: When *leaf* and *node* do not lead to its root: nobody gets a receipt that would not verify.
    """
    if not leaf:
        raise ValueError("a receipt cannot carry an empty leaf")
    tree = parse_checkpoint(parse_note(checkpoint)[0])
    proof = prove_inclusion(index, size=tree.size, node=node)
    verify_inclusion(proof, leaf=leaf_hash(leaf), index=index, size=tree.size, root=tree.root)
    return format_receipt(Receipt(index=index, proof=tuple(proof), checkpoint=checkpoint, extra=leaf))


def format_receipt(receipt: Receipt) -> bytes:
    """Return *receipt* as a file."""
    extra = [f"{_EXTRA}{encode_base64(receipt.extra)}"] if receipt.extra else []
    lines = [HEADER, *extra, f"{_INDEX}{receipt.index}", *map(encode_base64, receipt.proof), "", ""]
    return "\n".join(lines).encode() + receipt.checkpoint


def parse_receipt(file: bytes) -> Receipt:
    """Return what *file* holds.

    Raises:
        MalformedProof: When it is not a receipt. The checkpoint in it is not looked at here.
    """
    head, gap, checkpoint = file.partition(b"\n\n")
    if not gap or not head.isascii():
        raise MalformedProof("a receipt is a proof, an empty line and a checkpoint")
    header, *lines = head.decode().split("\n")
    if header != HEADER:
        raise MalformedProof(f"a receipt begins with the line {HEADER}")
    extra = _parse_extra(lines)
    if not lines or not lines[0].startswith(_INDEX):
        raise MalformedProof("a receipt names the index of its entry")
    return Receipt(
        index=decode_decimal(lines[0].removeprefix(_INDEX), what="the index of a receipt"),
        proof=tuple(decode_hash(line, what="a hash of a receipt") for line in lines[1:]),
        checkpoint=checkpoint,
        extra=extra,
    )


def verify_receipt(file: bytes, *, policy: Policy) -> Inclusion:
    """Return the entry that *file* carries, once it is proven to be in the log.

    Raises:
        MalformedProof: When *file* is not a receipt, or carries no entry.
        InvalidProof: When the checkpoint is not to be believed, or the entry is not in the log at that place.
    """
    receipt = parse_receipt(file)
    if receipt.extra is None:
        raise MalformedProof("this receipt does not carry its entry: the bytes of the entry are needed beside it")
    return _verify(receipt, receipt.extra, policy)


def verify_receipt_of(leaf: bytes, file: bytes, *, policy: Policy) -> Inclusion:
    """Return the proof by *file* that *leaf* is in the log, whatever entry it carries itself.

    Raises:
        MalformedProof: When *file* is not a receipt.
        InvalidProof: When the checkpoint is not to be believed, or *leaf* is not in the log at that place.
    """
    return _verify(parse_receipt(file), leaf, policy)


def _verify(receipt: Receipt, leaf: bytes, policy: Policy) -> Inclusion:
    signed = open_checkpoint(receipt.checkpoint, policy=policy)
    tree = signed.checkpoint
    verify_inclusion(receipt.proof, leaf=leaf_hash(leaf), index=receipt.index, size=tree.size, root=tree.root)
    return Inclusion(leaf=leaf, index=receipt.index, signed=signed)


def _parse_extra(lines: list[str]) -> bytes | None:
    """Take the ``extra`` line off *lines* where there is one."""
    if not lines or not lines[0].startswith(_EXTRA):
        return None
    extra = decode_base64(lines.pop(0).removeprefix(_EXTRA), what="the extra line of a receipt")
    if not extra:
        raise MalformedProof("the extra line of a receipt is empty")
    return extra
