"""The sealed log as MongoDB holds it: batches and tiles, to which the sealer only adds.

Whoever holds the rights of an administrator can write anything here, so what is read shows nothing until it is verified
against a signed checkpoint.

Document shape::

    audit_tiles  {_id: {log: str, level: int, index: int}, hashes: 8192 bytes}
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import MaxKey
from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from compliance.audit.batch import ID_BYTES, Batch, from_document, to_document
from compliance.audit.checkpoints import NO_NUMBER, Checkpoints
from compliance.audit.log import LENIENT
from compliance.audit.merkle import HASH_BYTES, NodeReader, root_of
from compliance.audit.tiles import WIDTH, Tile, nodes_in_tiles
from compliance.errors import IntegrityError, MalformedProof, UnknownName
from compliance.mongo import DUPLICATE_KEY, Databases, Document, Session, driver_errors
from compliance.roles import BATCHES, TILES

END = MaxKey()
CLOCKS_APART = timedelta(minutes=10)  # how far those of writers and sealer may be


@dataclass(frozen=True, slots=True)
class Sealed:
    """Which entries a batch holds, and when it was sealed: as it says, for nothing about it is verified."""

    log: str
    start: int
    ids: tuple[str, ...]
    sealed_at: datetime | None

    @property
    def end(self) -> int:
        """The size of the log with it."""
        return self.start + len(self.ids)


@dataclass(frozen=True, slots=True)
class Seals:
    """The sealed logs of one application."""

    databases: Databases

    @property
    def _batches(self) -> Collection[Document]:
        return self.databases.audit.get_collection(BATCHES, codec_options=LENIENT)

    @property
    def _tiles(self) -> Collection[Document]:
        return self.databases.audit.get_collection(TILES, codec_options=LENIENT)

    @property
    def checkpoints(self) -> Checkpoints:
        """The signed notes."""
        return Checkpoints(self.databases)

    def logs(self) -> list[str]:
        """Return the name of every log that has a batch, in the order of their names."""
        found: list[str] = []
        least = ""
        with driver_errors():
            while True:
                query = {"_id": {"$gte": {"log": least}, "$lt": {"log": {}}}}  # of text only
                first = self._batches.find_one(query, {"_id": 1}, sort={"_id": ASCENDING})
                if first is None or "log" not in first["_id"]:  # a name that a stranger chose comes behind
                    return found
                found.append(first["_id"]["log"])
                least = found[-1] + "\0"

    def batches(self, log: str, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of *log* that begin at *start* or later.

        Raises:
            MalformedProof: When one does not hang together.
        """
        with driver_errors():
            for document in self._batches.find(_of(log, start), sort={"_id": ASCENDING}):
                yield from_document(document)

    def sealed_since(self, log: str, moment: datetime) -> Iterator[Batch]:
        """Yield the batches of *log* that were sealed at *moment* or later, newest first.

        Also a few from before: the clocks of those who sealed may be apart.
        """
        with driver_errors():
            for document in self._batches.find(_of(log, 0), sort={"_id": DESCENDING}):
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
            found = self._batches.find_one(query, sort={"_id": DESCENDING})
        batch = from_document(found) if found else None
        if batch is None or index >= batch.end:
            raise UnknownName(f"{log} has no entry {index}")
        return batch

    def ids_since(self, log: str, moment: datetime | None) -> Iterator[Sealed]:
        """Yield what the batches of `sealed_since` hold, and those without a time; without a moment, all batches."""
        for sealed in self._sealed(_of(log, 0), DESCENDING):
            if moment is not None and sealed.sealed_at is not None and sealed.sealed_at < moment - CLOCKS_APART:
                return
            yield sealed

    def ids_behind(self, log: str, start: int) -> Iterator[Sealed]:
        """Yield what the batches of *log* hold that begin at *start* or later, whether they hang together or not."""
        return self._sealed(_of(log, start), ASCENDING)

    def _sealed(self, query: Document, order: int) -> Iterator[Sealed]:
        with driver_errors():
            yield from map(_to_sealed, self._batches.find(query, {"ids": 1, "sealed_at": 1}, sort={"_id": order}))

    def index_of(self, entry: Mapping[str, Any]) -> int:
        """Return which entry of its log *entry* is.

        Raises:
            UnknownName: When it is not sealed yet.
        """
        created_at = entry["created_at"]
        since = created_at - CLOCKS_APART if isinstance(created_at, datetime) else None
        for sealed in self.ids_since(str(entry["log"]), since):
            if entry["_id"] in sealed.ids:
                return sealed.start + sealed.ids.index(entry["_id"])
        raise UnknownName("the entry is not sealed yet; the watcher seals every second: try again")

    def place_of(self, entry_id: str) -> tuple[str, int] | None:
        """Return log and index of an entry by its id alone, None where no batch holds it; may read all batches."""
        for log in reversed(self.logs()):
            for sealed in self.ids_since(log, None):
                if entry_id in sealed.ids:
                    return log, sealed.start + sealed.ids.index(entry_id)
        return None

    def extent(self, log: str) -> tuple[int, int]:
        """Return where the last batch of *log* begins and ends, zero where there is none."""
        with driver_errors():
            found = self._batches.find_one(_of(log, 0), {"n": 1}, sort={"_id": DESCENDING}) or {"_id": {}}
        start, count = found["_id"].get("start"), found.get("n")
        is_batch = isinstance(start, int) and isinstance(count, int)
        return (start, start + count) if is_batch else (0, 0)

    def last_batch(self, log: str, *, until: str | None = None, before: str | None = None) -> Batch | None:
        """Return the last batch of *log*, or the last one whose token is *until* at most, or comes *before* another."""
        token = {name: bound for name, bound in (("$lte", until), ("$lt", before)) if bound is not None}
        query = _of(log, 0) | ({"token": token} if token else {})
        with driver_errors():
            found = self._batches.find_one(query, sort={"_id": DESCENDING})
        return from_document(found) if found else None

    def add_batch(self, batch: Batch, tiles: Iterable[tuple[Tile, bytes]], *, session: Session) -> bool:
        """Insert *batch* and its full tiles in the transaction of *session*; False when another is in its place.

        After False the transaction is aborted.

        Raises:
            IntegrityError: When somebody else put a tile in the place of one of *tiles*.
        """
        try:
            self._batches.insert_one(to_document(batch), session=session)
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

    def ends(self, before: datetime | None = None) -> list[tuple[str, int]]:
        """Return log and size of the last checkpoint of every log, that which was sealed last first.

        Not the last by name first: an entry may be dated in the next year.

        Args:
            before: Where given, what was sealed since then is left out.
        """
        found: list[tuple[datetime, str, int]] = []
        for log in self.logs():
            end = {"$lt": {"log": log, "start": self.checkpoints.signed_size(log, NO_NUMBER)}}
            query = {"_id": _of(log, 0)["_id"] | end, **({"sealed_at": {"$lt": before}} if before else {})}
            with driver_errors():
                document = self._batches.find_one(query, sort={"_id": DESCENDING})
            with suppress(MalformedProof):
                batch = from_document(document or {})
                signed = self.checkpoints.signed_size(log, batch.end)
                found += [(batch.sealed_at, log, signed)] if signed else []
        return [(log, size) for _, log, size in sorted(found, reverse=True)]

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
                found = self._tiles.find_one({"_id": {"log": log, "level": tile.level, "index": tile.index}})
            if found is not None:
                return _hashes(found, tile)
        begin = tile.index * WIDTH
        if tile.level == 0:
            return b"".join(self.leaves(log, begin, begin + tile.width))
        below = (self.tile(log, Tile(tile.level - 1, index)) for index in range(begin, begin + tile.width))
        return b"".join(root_of(_split(hashes)) for hashes in below)

    def stored_tiles(self, log: str, tiles: Iterable[Tile]) -> dict[tuple[int, int], object]:
        """Return the hashes of those of *tiles* that are stored, by level and index."""
        places = [{"log": log, "level": tile.level, "index": tile.index} for tile in tiles]
        with driver_errors():
            found = list(self._tiles.find({"_id": {"$in": places}}))
        return {(document["_id"]["level"], document["_id"]["index"]): document.get("hashes") for document in found}

    def tile_places(self) -> Iterator[Any]:
        """Yield the id of every stored tile."""
        with driver_errors():
            yield from (document.get("_id") for document in self._tiles.find({}, {"_id": 1}, hint="_id_"))

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


def _to_sealed(document: Document) -> Sealed:
    ids, sealed_at = document.get("ids"), document.get("sealed_at")
    text = ids.hex() if isinstance(ids, bytes) else ""
    start = document["_id"].get("start")
    return Sealed(
        log=document["_id"]["log"],
        start=start if isinstance(start, int) else 0,
        ids=tuple(text[begin : begin + 2 * ID_BYTES] for begin in range(0, len(text), 2 * ID_BYTES)),
        sealed_at=sealed_at if isinstance(sealed_at, datetime) else None,
    )


def _of(log: str, start: int) -> Document:
    return {"_id": {"$gte": {"log": log, "start": start}, "$lt": {"log": log, "start": END}}}


def _hashes(document: Document, tile: Tile) -> bytes:
    hashes = document.get("hashes")
    if not isinstance(hashes, bytes):
        raise MalformedProof(f"{tile.path} is stored as something else than hashes")
    return hashes


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[begin : begin + HASH_BYTES] for begin in range(0, len(hashes), HASH_BYTES)]
