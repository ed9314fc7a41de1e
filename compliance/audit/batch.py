"""A batch: entries that were sealed together, as the next leaves of the log of their year.

Document shape (``audit_batches``, insert only)::

    {_id: {log: str, start: int}, n: int, ids: 16 bytes each, leaves: 32 bytes each, frontier: 32 bytes each,
     sealed_at: date, token: str}

``start`` is the size of the log before it, so of two sealers one only can insert the next batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.audit.merkle import HASH_BYTES, Frontier
from compliance.errors import MalformedProof

ID_BYTES = 16
MAX_LEAVES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Entries that were sealed together.

    Attributes:
        log: The log of one year.
        ids: The ids of the entries in the order of the log.
        leaves: Their leaf hashes.
        frontier: The tree with them.
        token: Where the change stream stood behind them.
    """

    log: str
    ids: tuple[str, ...]
    leaves: tuple[bytes, ...]
    frontier: Frontier
    sealed_at: datetime
    token: str

    @property
    def start(self) -> int:
        """The size of the log before."""
        return self.frontier.size - len(self.leaves)

    @property
    def end(self) -> int:
        """The size of the log with it."""
        return self.frontier.size


def to_document(batch: Batch) -> dict[str, Any]:
    """Return *batch* as it is stored."""
    return {
        "_id": {"log": batch.log, "start": batch.start},
        "n": len(batch.leaves),
        "ids": b"".join(map(bytes.fromhex, batch.ids)),
        "leaves": b"".join(batch.leaves),
        "frontier": b"".join(batch.frontier.hashes),
        "sealed_at": batch.sealed_at,
        "token": batch.token,
    }


def from_document(document: Mapping[str, Any]) -> Batch:
    """Return the batch that *document* holds; nothing about it is verified, but that it hangs together.

    Raises:
        MalformedProof: When it does not.
    """
    try:
        place, count = document["_id"], int(document["n"])
        ids, leaves = _parts(document["ids"], ID_BYTES), _parts(document["leaves"], HASH_BYTES)
        frontier = Frontier(int(place["start"]) + count, tuple(_parts(document["frontier"], HASH_BYTES)))
        sealed_at, token = document["sealed_at"], str(document["token"])
    except (KeyError, TypeError, ValueError):
        raise MalformedProof("a batch lacks a field, or has one of another type") from None
    if {len(ids), len(leaves)} != {count} or not isinstance(sealed_at, datetime):
        raise MalformedProof("a batch does not hold as many entries as it says")
    return Batch(
        log=str(place["log"]),
        ids=tuple(one.hex() for one in ids),
        leaves=tuple(leaves),
        frontier=frontier,
        sealed_at=sealed_at,
        token=token,
    )


def _parts(data: Any, length: int) -> Sequence[bytes]:
    if not isinstance(data, bytes) or len(data) % length:
        raise MalformedProof("a batch ends within an id or a hash")
    return [data[begin : begin + length] for begin in range(0, len(data), length)]
