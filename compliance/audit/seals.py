"""The sealed log as MongoDB holds it: batches, checkpoints and tiles, to which the sealer only adds.

Whoever holds the rights of an administrator can write anything here, so what is read shows nothing until it is verified
against a signed checkpoint.

Document shapes::

    audit_checkpoints  {_id: {log: str, size: int}, note: bytes}
    audit_tiles        {_id: {log: str, level: int, index: int}, hashes: 8192 bytes}
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import MaxKey
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError, DuplicateKeyError

from compliance.audit.batch import ID_BYTES, Batch, from_document, to_document
from compliance.audit.merkle import HASH_BYTES, NodeReader, root_of
from compliance.audit.tiles import WIDTH, Tile, nodes_in_tiles
from compliance.errors import IntegrityError, MalformedProof, UnknownName
from compliance.mongo import DUPLICATE_KEY, Databases, Document, Session, driver_errors
from compliance.roles import BATCHES, CHECKPOINTS, COSIGNATURES, TILES

END = MaxKey()
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")
CLOCKS_APART = timedelta(minutes=10)  # how far those of writers and sealer may be


@dataclass(frozen=True, slots=True)
class Seals:
    """The sealed logs of one application."""

    databases: Databases

    def logs(self) -> list[str]:
        """Return the name of every log that has a batch, in the order of their names."""
        found: list[str] = []
        query: Document = {}
        with driver_errors():
            while True:
                first = self.databases.audit[BATCHES].find_one(query, {"_id": 1}, sort={"_id": ASCENDING})
                if first is None:
                    return found
                found.append(first["_id"]["log"])
                query = {"_id": {"$gt": {"log": found[-1], "start": END}}}

    def batches(self, log: str, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of *log* that begin at *start* or later.

        Raises:
            MalformedProof: When one does not hang together.
        """
        with driver_errors():
            for document in self.databases.audit[BATCHES].find(_of(log, start), sort={"_id": ASCENDING}):
                yield from_document(document)

    def sealed_since(self, log: str, moment: datetime) -> Iterator[Batch]:
        """Yield the batches of *log* that were sealed at *moment* or later, newest first.

        Also a few from before: the clocks of those who sealed may be apart.
        """
        with driver_errors():
            for document in self.databases.audit[BATCHES].find(_of(log, 0), sort={"_id": DESCENDING}):
                batch = from_document(document)
                if batch.sealed_at < moment - CLOCKS_APART:
                    return
                yield batch

    def batch_with(self, log: str, index: int) -> Batch:
        """Return the batch that holds entry *index* of *log*.

        Raises:
            UnknownName: When none does.
        """
        query = {"_id": {"$gte": {"log": log, "start": 0}, "$lte": {"log": log, "start": index}}}
        with driver_errors():
            found = self.databases.audit[BATCHES].find_one(query, sort={"_id": DESCENDING})
        batch = from_document(found) if found else None
        if batch is None or index >= batch.end:
            raise UnknownName(f"{log} has no entry {index}")
        return batch

    def index_of(self, entry: Mapping[str, Any]) -> int:
        """Return which entry of its log *entry* is.

        Raises:
            UnknownName: When it is not sealed yet.
        """
        query = _of(entry["log"], 0) | {"sealed_at": {"$gte": entry["created_at"] - CLOCKS_APART}}
        with driver_errors():
            for document in self.databases.audit[BATCHES].find(query, sort={"_id": ASCENDING}):
                batch = from_document(document)
                if entry["_id"] in batch.ids:
                    return batch.start + batch.ids.index(entry["_id"])
        raise UnknownName("the entry is not sealed yet; the watcher seals every second: try again")

    def place_of(self, entry_id: str) -> tuple[str, int] | None:
        """Return log and index of an entry by its id alone, None where no batch holds it; reads all batches."""
        if not _ID.fullmatch(entry_id):
            return None
        wanted = bytes.fromhex(entry_id)
        with driver_errors():
            for document in self.databases.audit[BATCHES].find({}, {"ids": 1}, sort={"_id": ASCENDING}):
                ids = document["ids"]
                for begin in range(0, len(ids), ID_BYTES):
                    if ids[begin : begin + ID_BYTES] == wanted:
                        return document["_id"]["log"], document["_id"]["start"] + begin // ID_BYTES
        return None

    def last_batch(self, log: str, *, until: str | None = None, before: str | None = None) -> Batch | None:
        """Return the last batch of *log*, or the last one whose token is *until* at most, or comes *before* another."""
        token = {name: bound for name, bound in (("$lte", until), ("$lt", before)) if bound is not None}
        query = _of(log, 0) | ({"token": token} if token else {})
        with driver_errors():
            found = self.databases.audit[BATCHES].find_one(query, sort={"_id": DESCENDING})
        return from_document(found) if found else None

    def add_batch(self, batch: Batch, tiles: Iterable[tuple[Tile, bytes]], *, session: Session) -> bool:
        """Insert *batch* and its full tiles in the transaction of *session*; False when another is in its place.

        After False the transaction is aborted.

        Raises:
            IntegrityError: When somebody else put a tile in the place of one of *tiles*.
        """
        try:
            self.databases.audit[BATCHES].insert_one(to_document(batch), session=session)
        except DuplicateKeyError:
            return False
        full = [
            {"_id": {"log": batch.log, "level": tile.level, "index": tile.index}, "hashes": hashes}
            for tile, hashes in tiles
        ]
        try:
            if full:
                self.databases.audit[TILES].insert_many(full, session=session)
        except BulkWriteError as error:
            if {fault["code"] for fault in error.details["writeErrors"]} != {DUPLICATE_KEY}:
                raise
            raise IntegrityError(f"a tile of {batch.log} is there before its entries; nothing more is sealed") from None
        return True

    def checkpoint(self, log: str, size: int | None = None) -> bytes | None:
        """Return the signed note of *log* for *size*, or the last one; None where there is none."""
        query = {"_id": {"log": log, "size": size}} if size is not None else _sizes(log)
        with driver_errors():
            found = self.databases.audit[CHECKPOINTS].find_one(query, sort={"_id": DESCENDING})
        return bytes(found["note"]) if found else None

    def checkpoint_before(self, moment: datetime) -> bytes | None:
        """Return the signed note of the last batch before *moment* in the present log, None where there is none."""
        logs = self.logs()
        if not logs:
            return None
        with driver_errors():
            found = self.databases.audit[BATCHES].find_one(
                _of(logs[-1], 0) | {"sealed_at": {"$lt": moment}}, sort={"_id": DESCENDING}
            )
        return self.checkpoint(logs[-1], from_document(found).end) if found else None

    def checkpoints(self, log: str, *, above: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield size and signed note of the checkpoints of *log* above a size, smallest first."""
        with driver_errors():
            for found in self.databases.audit[CHECKPOINTS].find(_sizes(log, above + 1), sort={"_id": ASCENDING}):
                yield int(found["_id"]["size"]), bytes(found["note"])

    def add_checkpoint(self, log: str, size: int, note: bytes) -> bool:
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

    def cosigned(self, log: str, size: int) -> bytes | None:
        """Return the checkpoint of *size* with all cosignatures that are kept, None where there is none."""
        note = self.checkpoint(log, size)
        if note is None:
            return None
        with driver_errors():
            found = self.databases.audit[COSIGNATURES].find({"_id.log": log, "_id.size": size})
            return note + b"".join(bytes(document["lines"]) for document in found)

    def nodes(self, log: str, size: int) -> NodeReader:
        """Return a reader of the tree of the first *size* entries of *log*.

        It raises ``MalformedProof`` where batches or tiles are missing.
        """
        return nodes_in_tiles(size, read=lambda tile: self.tile(log, tile))

    def tile(self, log: str, tile: Tile) -> bytes:
        """Return the hashes of *tile*; what is not stored is computed from the tiles below, and those from batches.

        Raises:
            MalformedProof: Where the log does not reach so far.
        """
        if tile.width == WIDTH:
            with driver_errors():
                found = self.databases.audit[TILES].find_one(
                    {"_id": {"log": log, "level": tile.level, "index": tile.index}}
                )
            if found is not None:
                return bytes(found["hashes"])
        begin = tile.index * WIDTH
        if tile.level == 0:
            return b"".join(self.leaves(log, begin, begin + tile.width))
        below = (self.tile(log, Tile(tile.level - 1, index)) for index in range(begin, begin + tile.width))
        return b"".join(root_of(_split(hashes)) for hashes in below)

    def leaves(self, log: str, begin: int, end: int) -> list[bytes]:
        """Return the leaf hashes from *begin* to *end*, as batches hold them.

        Raises:
            MalformedProof: Where the log does not reach so far.
        """
        found: list[bytes] = []
        while begin < end:
            try:
                batch = self.batch_with(log, begin)
            except UnknownName as error:
                raise MalformedProof(str(error)) from None
            part = batch.leaves[begin - batch.start : end - batch.start]
            found += part
            begin += len(part)
        return found


def _of(log: str, start: int) -> Document:
    return {"_id": {"$gte": {"log": log, "start": start}, "$lt": {"log": log, "start": END}}}


def _sizes(log: str, size: int = 0) -> Document:
    return {"_id": {"$gte": {"log": log, "size": size}, "$lt": {"log": log, "size": END}}}


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[begin : begin + HASH_BYTES] for begin in range(0, len(hashes), HASH_BYTES)]
