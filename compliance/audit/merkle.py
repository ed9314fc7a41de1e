"""The Merkle tree of the log: roots, and the proofs that an entry is in it and that it only grew.

Source: RFC 6962 section 2.1 (hashes), RFC 9162 sections 2.1.3 and 2.1.4 (proofs and their verification). The hash is
SHA-256; every hash here is 32 bytes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from compliance.errors import InvalidProof, MalformedProof

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]
"""Gives the hash of a node: of *level* 0 the leaf *index*, above it the root of the ``2 ** level`` leaves below."""

_LEAF = b"\x00"
_NODE = b"\x01"  # without the two prefixes, a node could be passed off as a leaf


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf that holds *data*."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above *left* and *right*."""
    return hashlib.sha256(_NODE + left + right).digest()


def check_hashes(hashes: Iterable[bytes]) -> list[bytes]:
    """Return *hashes* once every one is known to be as long as a hash.

    Without this, others could be joined to the bytes of a node that they are not the children of, and the bytes of a
    leaf could be taken for its hash.

    Raises:
        MalformedProof: When one is not.
    """
    found = list(hashes)
    for one in found:
        if len(one) != HASH_BYTES:
            raise MalformedProof(f"a hash has {len(one)} bytes instead of {HASH_BYTES}")
    return found


def root_of(hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaf *hashes*; holds them in memory, unlike `Frontier`."""
    level = check_hashes(hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


def nodes_of(hashes: Iterable[bytes]) -> NodeReader:
    """Return a reader of the tree over leaf *hashes*; it holds two hashes per leaf."""
    levels = [check_hashes(hashes)]
    while len(levels[-1]) > 1:
        row = levels[-1]
        levels.append([node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=False)])
    return lambda level, index: levels[level][index]


@dataclass(frozen=True, slots=True)
class Frontier:
    """What is needed of a tree to go on: the roots of its complete subtrees, largest first.

    Raises:
        MalformedProof: When *hashes* cannot be those of a tree of *size*.

    Source: RFC 9162 section 2.1.2, where this is the stack.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise MalformedProof(f"a frontier of size {self.size} does not have {len(self.hashes)} hashes")
        check_hashes(self.hashes)

    @property
    def root(self) -> bytes:
        """The root hash of the tree."""
        return _fold(self.hashes)

    def extended(self, leaves: Iterable[bytes]) -> "Frontier":
        """Return the frontier after leaf hashes *leaves*; memory grows with the logarithm of the size."""
        size, stack = self.size, list(self.hashes)
        for leaf in leaves:
            check_hashes((leaf,))
            node, rest = leaf, size
            while rest & 1:
                node = node_hash(stack.pop(), node)
                rest >>= 1
            stack.append(node)
            size += 1
        return Frontier(size, tuple(stack))


def read_frontier(size: int, node: NodeReader) -> Frontier:
    """Return the frontier of the tree of the first *size* leaves, from its nodes."""
    return Frontier(size, tuple(node(level, index) for level, index in _complete_subtrees(0, size)))


def prove_inclusion(index: int, *, size: int, node: NodeReader) -> list[bytes]:
    """Return the proof that leaf *index* is in the tree of *size*: from its sibling up.

    Raises:
        ValueError: When there is no such leaf.

    Source: RFC 9162 section 2.1.3.1.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of size {size} has no leaf {index}")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(begin, middle, node))
            begin = middle
    return proof[::-1]


def verify_inclusion(proof: Sequence[bytes], *, leaf: bytes, index: int, size: int, root: bytes) -> None:
    """Check that the leaf with hash *leaf* is number *index* of the tree of *size* with *root*.

    Raises:
        InvalidProof: When *proof* does not show that.

    Source: RFC 9162 section 2.1.3.2.
    """
    check_hashes((leaf, root, *proof))
    if not 0 <= index < size:
        raise InvalidProof(f"a tree of size {size} has no leaf {index}")
    position, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise InvalidProof(f"an inclusion proof has hashes too many: leaf {index} of {size}")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            position, last = _to_odd(position, last)
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProof(f"an inclusion proof has hashes too few: leaf {index} of {size}")
    if found != root:
        raise InvalidProof(f"an inclusion proof leads to another root: leaf {index} of {size}")


def prove_consistency(first: int, second: int, *, node: NodeReader) -> list[bytes]:
    """Return the proof that the tree of *first* leaves is the beginning of the tree of *second*.

    Empty when *first* is zero or both are equal: then there is nothing to show.

    Raises:
        ValueError: When *first* is not between zero and *second*.

    Source: RFC 9162 section 2.1.4.1.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of size {first} is not the beginning of one of size {second}")
    if first in (0, second):
        return []
    proof: list[bytes] = []
    begin, end = 0, second
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(begin, middle, node))
            begin = middle
    if begin:  # else what is left is the whole first tree, whose root the verifier knows
        proof.append(_range_root(begin, end, node))
    return proof[::-1]


def verify_consistency(
    proof: Sequence[bytes], *, first: int, first_root: bytes, second: int, second_root: bytes
) -> None:
    """Check that the tree of *first* leaves is the beginning of the tree of *second*.

    Raises:
        InvalidProof: When *proof* does not show that. One for equal sizes, or from the empty tree, must be empty.

    Source: RFC 9162 section 2.1.4.2.
    """
    check_hashes((first_root, second_root, *proof))
    if not 0 <= first <= second:
        raise InvalidProof(f"a tree of size {second} cannot have grown from one of size {first}")
    if first in (0, second):
        if proof:
            raise InvalidProof(f"a consistency proof from {first} to {second} must be empty")
        if first_root != (EMPTY_ROOT if first == 0 else second_root):
            raise InvalidProof(f"the root of size {first} is another one")
        if second == 0 and second_root != EMPTY_ROOT:
            raise InvalidProof("the root of size 0 is another one")
        return
    if not proof:
        raise InvalidProof(f"a consistency proof from {first} to {second} must not be empty")
    _verify_growth(proof, first=first, first_root=first_root, second=second, second_root=second_root)


def _verify_growth(proof: Sequence[bytes], *, first: int, first_root: bytes, second: int, second_root: bytes) -> None:
    """Carry out the seven steps of RFC 9162 section 2.1.4.2, for sizes that differ."""
    start, *rest = proof if first & (first - 1) else (first_root, *proof)
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = start
    for sibling in rest:
        if last == 0:
            raise InvalidProof(f"a consistency proof from {first} to {second} has hashes too many")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            position, last = _to_odd(position, last)
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProof(f"a consistency proof from {first} to {second} has hashes too few")
    if (old, new) != (first_root, second_root):
        raise InvalidProof(f"a consistency proof from {first} to {second} leads to other roots")


def _to_odd(position: int, last: int) -> tuple[int, int]:
    """Go up the right edge, where a node without a sibling stands for its own parent."""
    while not position & 1 and position:
        position, last = position >> 1, last >> 1
    return position, last


def _split(count: int) -> int:
    """Return the largest power of two below *count* (RFC 6962 section 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _complete_subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield level and index of the complete subtrees that make up a range which a split left, largest first."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _range_root(begin: int, end: int, node: NodeReader) -> bytes:
    return _fold(tuple(node(level, index) for level, index in _complete_subtrees(begin, end)))


def _fold(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return EMPTY_ROOT
    *rest, found = hashes
    for left in reversed(rest):
        found = node_hash(left, found)
    return found
