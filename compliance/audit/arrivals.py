"""What the change stream brings to the sealer: which of it are entries that a writer of ours signed, each once.

The hash of an entry covers its signature, and the next entry of its stream names that hash. So one signature vouches
for all entries before it in its stream, and of what comes together only the last entry of each stream is verified.

An entry that was removed and put back, from a backup for instance, comes a second time. It can only be one whose stream
has been here with a later number, or whose stream began before this sealer did; those are looked up.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument

from compliance.audit.leaf import EPOCH, stored_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.signed import find_fault
from compliance.audit.stored import read_stored, stored_id
from compliance.audit.trust import Trust
from compliance.audit.wire import encode_base64
from compliance.mongo import Document

MAX_STREAMS = 100_000  # remembered; each costs about 150 bytes

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A document that came, of the shape of an entry; whether a writer of ours signed it is not known yet.

    Attributes:
        leaf: Its canonical bytes.
        place: Key and name of its stream.
        prev: What it names as the hash of the entry before it.
    """

    document: Document
    leaf: bytes
    hash: bytes
    place: tuple[str, str]
    seq: int
    prev: str | None

    @property
    def id(self) -> str:
        """The id of the entry."""
        return str(self.document["_id"])

    @property
    def log(self) -> str:
        """The log that it names."""
        return str(self.document["log"])

    @property
    def created_at(self) -> datetime:
        """Its time, by the clock of its writer."""
        moment: datetime = self.document["created_at"]
        return moment


def read_arrival(raw: RawBSONDocument) -> Arrival:
    """Return what came as *raw*.

    Raises:
        Unreadable: When it is no entry, whoever signed it.
    """
    try:
        document = read_stored(raw)
        leaf = stored_bytes(document)
    except (TypeError, ValueError):
        raise Unreadable(stored_id(raw), "MODIFIED it holds a value that no entry can hold") from None
    writer = document.get("writer")
    if not (isinstance(writer, dict) and _is_entry(document) and _is_place(writer)):
        raise Unreadable(document.get("_id"), "FORGED it is not of the shape of an entry")
    return Arrival(
        document=document,
        leaf=leaf,
        hash=leaf_hash(leaf),
        place=(writer["key"], writer["stream"]),
        seq=writer["seq"],
        prev=writer["prev"],
    )


class Unreadable(Exception):
    """A document that is no entry.

    Attributes:
        id: Whatever it has as its id.
        fault: The kind of what is wrong with it, and why.
    """

    def __init__(self, id_: object, fault: str) -> None:
        super().__init__(fault)
        self.id = id_
        self.fault = fault


def find_faults(arrivals: Iterable[Arrival], trust: Trust) -> list[str | None]:
    """Return what is wrong with each of *arrivals*, None where a writer of *trust* signed just these bytes."""
    found: list[str | None] = []
    vouched: dict[tuple[str, str], str | None] = {}
    for arrival in reversed(list(arrivals)):
        is_vouched = vouched.get(arrival.place) == encode_base64(arrival.hash)
        fault = None if is_vouched else find_fault(arrival.document, trust)
        if fault is None:
            vouched[arrival.place] = arrival.prev
        found.append(fault)
    return found[::-1]


@dataclass(slots=True)
class Streams:
    """How far each stream has come, of those of which something came for the first time lately."""

    _last: dict[tuple[str, str], int] = field(default_factory=dict)

    def is_known(self, arrival: Arrival) -> bool:
        """Whether anything of the stream of *arrival* came for the first time here."""
        return arrival.place in self._last

    def doubtful(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """Return those of *arrivals* that may have come before: of no known stream, or no further than it was."""
        last: dict[tuple[str, str], int] = {}
        found = []
        for arrival in arrivals:
            known = self._last.get(arrival.place)
            if known is None or arrival.seq <= max(known, last.get(arrival.place, 0)):
                found.append(arrival)
            last[arrival.place] = max(arrival.seq, last.get(arrival.place, 0))
        return found

    def add(self, arrival: Arrival) -> None:
        """Note that *arrival* came for the first time: so does whatever follows it in its stream."""
        self._last[arrival.place] = max(arrival.seq, self._last.get(arrival.place, 0))

    def forget(self) -> bool:
        """Forget all streams where they are too many; return whether they were."""
        is_too_many = len(self._last) > MAX_STREAMS
        if is_too_many:
            self._last.clear()
        return is_too_many


def shown(id_: object) -> str:
    """Return what may be said of an id that a stranger may have written."""
    return id_ if isinstance(id_, str) and _ID.fullmatch(id_) else "of another shape"


def _is_entry(document: Document) -> bool:
    id_ = document.get("_id")
    moment = document.get("created_at")
    is_named = isinstance(id_, str) and _ID.fullmatch(id_) is not None and isinstance(document.get("log"), str)
    return is_named and isinstance(moment, datetime) and moment >= EPOCH


def _is_place(writer: dict[str, Any]) -> bool:
    is_stream = isinstance(writer.get("key"), str) and isinstance(writer.get("stream"), str)
    prev = writer.get("prev", 0)
    return is_stream and isinstance(writer.get("seq"), int) and (prev is None or isinstance(prev, str))
