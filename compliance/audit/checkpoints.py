"""The signed notes of the sealed log as MongoDB holds them, and what witnesses signed beside.

Whoever holds the rights of an administrator can write anything here, so a note shows nothing until its signature is
verified.

Document shapes::

    audit_checkpoints   {_id: {log: str, size: int}, note: bytes}
    audit_cosignatures  {_id: {log: str, size: int, lines: bytes}, lines: bytes}
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from compliance.audit.keys import Verifier
from compliance.audit.log import LENIENT
from compliance.audit.note import gather_lines
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import CHECKPOINTS, COSIGNATURES

NO_NUMBER = ""  # comes behind every number


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The signed notes of all logs of one application."""

    databases: Databases

    @property
    def _notes(self) -> Collection[Document]:
        return self.databases.audit.get_collection(CHECKPOINTS, codec_options=LENIENT)

    def note(self, log: str, size: int | None = None) -> bytes | None:
        """Return the signed note of *log* for *size*, or the last one; None where there is none."""
        query = {"_id": {"log": log, "size": size}} if size is not None else _sizes(log)
        with driver_errors():
            found = self._notes.find_one(query, sort={"_id": DESCENDING})
        return _note(found) if found else None

    def last(self, log: str, count: int) -> list[bytes]:
        """Return the signed notes of *log* with the greatest sizes, greatest first."""
        with driver_errors():
            found = self._notes.find(_sizes(log), sort={"_id": DESCENDING}, limit=count)
            return list(map(_note, found))

    def above(self, log: str, size: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield size and signed note of the checkpoints of *log* above *size*, smallest first."""
        with driver_errors():
            for found in self._notes.find(_sizes(log, size + 1), sort={"_id": ASCENDING}):
                if isinstance(found["_id"]["size"], int):
                    yield int(found["_id"]["size"]), _note(found)

    def odd(self) -> Iterator[Any]:
        """Yield the id of every checkpoint whose size is none."""
        odd = {"_id.size": {"$not": {"$type": ["int", "long"]}}}
        with driver_errors():
            yield from (found["_id"] for found in self._notes.find(odd, {"_id": 1}))

    def signed_size(self, log: str, most: object) -> int:
        """Return the size of the last checkpoint of *log* up to *most*, zero where there is none."""
        query = {"_id": {"$gte": {"log": log, "size": 1}, "$lte": {"log": log, "size": most}}}
        with driver_errors():
            for found in self._notes.find(query, {"_id": 1}, sort={"_id": DESCENDING}):
                if isinstance(found["_id"]["size"], int):
                    return int(found["_id"]["size"])
        return 0

    def add(self, log: str, size: int, note: bytes) -> bool:
        """Insert a signed note; False when there is one for this size."""
        with driver_errors():
            try:
                self.databases.audit[CHECKPOINTS].insert_one({"_id": {"log": log, "size": size}, "note": note})
            except DuplicateKeyError:
                return False
            return True

    def add_cosignatures(self, log: str, size: int, lines: bytes) -> None:
        """Keep signature lines that a witness made for the checkpoint of *size*; a second time changes nothing."""
        document = {"_id": {"log": log, "size": size, "lines": lines}, "lines": lines}
        with driver_errors():
            try:
                self.databases.audit[COSIGNATURES].insert_one(document)
            except DuplicateKeyError:
                return

    def cosigned(self, log: str, size: int, *, known: Iterable[Verifier] = ()) -> bytes | None:
        """Return the checkpoint of *size* with the cosignatures that are kept, None where there is none.

        Args:
            log: The name of the log.
            size: The size of a checkpoint.
            known: Keys of witnesses: their lines are verified, and come first.
        """
        note = self.note(log, size)
        if note is None:
            return None
        query = {"_id": {"$gte": {"log": log, "size": size}, "$lt": {"log": log, "size": size + 1}}}
        cosignatures = self.databases.audit.get_collection(COSIGNATURES, codec_options=LENIENT)
        with driver_errors():
            lines = (document.get("lines") for document in cosignatures.find(query, {"lines": 1}))
            return gather_lines(note, (one for one in lines if isinstance(one, bytes)), known=known)


def _sizes(log: str, size: int = 0) -> Document:
    return {"_id": {"$gte": {"log": log, "size": size}, "$lt": {"log": log, "size": NO_NUMBER}}}


def _note(document: Document) -> bytes:
    """Return the note of a checkpoint; where it is none, something that nobody who opens it believes."""
    note = document.get("note")
    return note if isinstance(note, bytes) else b""
