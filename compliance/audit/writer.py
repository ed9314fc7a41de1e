"""The writer of entries: signs each one and links it to the one before.

The entries of one thread are a stream: numbered without a gap, each naming the hash of the one before. So an entry that
is taken out is missed, even where nothing had been sealed yet. A transaction whose end is not known ends the stream,
for nobody can say what the next number is; the next entry begins another one.
"""

import os
import secrets
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from compliance.audit.entry import Cause, Entry, to_document
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import SIGNATURE, stored_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.trust import key_name
from compliance.audit.wire import encode_base64

STREAM_BYTES = 8
MAX_PROCESS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the next entry of a stream goes.

    Attributes:
        prev: The leaf hash of the entry before in base64; None for the first.
    """

    stream: str = field(default_factory=lambda: secrets.token_hex(STREAM_BYTES))
    seq: int = 0
    prev: str | None = None


class _Stream(threading.local):
    """What one thread has written: how far it is committed, and how far its present transaction is."""

    def __init__(self) -> None:
        self.committed = Place()
        self.draft: Place | None = None


class Writer:
    """Signs the entries of one process; the client of its databases tells it of every transaction.

    Attributes:
        origin: The name of the log without its year.
        key: MUST be known to whoever seals and verifies, by its public half.
        key_name: What entries call it.
        process: Which process this is, such as the name of its MongoDB user.
    """

    def __init__(self, *, origin: str, key: SigningKey, process: str) -> None:
        self.origin = origin
        self.key = key
        self.key_name = key_name(key.verifier)
        self.process = f"{process}:{os.getpid()}"[:MAX_PROCESS]
        self.host = socket.gethostname().replace("@", "_")[:MAX_PROCESS]
        self._stream = _Stream()

    def begin(self) -> None:
        """Forget what a transaction wrote that did not commit: one begins, or begins again."""
        self._stream.draft = self._stream.committed

    def commit(self) -> None:
        """Go on behind what the transaction of this thread wrote: it is committed."""
        if self._stream.draft is not None:
            self._stream.committed, self._stream.draft = self._stream.draft, None

    def abandon(self) -> None:
        """Begin another stream if the transaction of this thread wrote anything: nobody knows whether it counts."""
        if self._stream.draft not in (None, self._stream.committed):
            self._stream.committed = Place()
        self._stream.draft = None

    def sign(self, entry: Entry, cause: Cause) -> tuple[dict[str, Any], bytes]:
        """Return the document of *entry* as the next of this thread's stream, and its canonical bytes.

        Raises:
            RuntimeError: Outside a transaction of `compliance.mongo.Databases.transact`.
        """
        place = self._stream.draft
        if place is None:
            raise RuntimeError("an audit entry is written in a transaction of Databases.transact only")
        document = to_document(entry, cause) | self._stamp(entry, cause, place)
        document[SIGNATURE] = encode_base64(self.key.sign(stored_bytes(document)))
        leaf = stored_bytes(document)
        self._stream.draft = Place(stream=place.stream, seq=place.seq + 1, prev=encode_base64(leaf_hash(leaf)))
        return document, leaf

    def _stamp(self, entry: Entry, cause: Cause, place: Place) -> dict[str, Any]:
        return {
            "log": log_name(self.origin, entry.created_at),
            "source": {
                "host": self.host,
                "process": self.process,
                "channel": cause.channel,
                "trace_id": cause.trace_id,
            },
            "writer": {
                "key": self.key_name,
                "stream": place.stream,
                "seq": place.seq,
                "prev": place.prev,
            },
        }


def log_name(origin: str, moment: datetime) -> str:
    """Return the name of the log that holds the entries of a moment: one for each year."""
    return f"{origin}/{moment.year}"
