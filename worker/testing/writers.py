"""The application that writes while a script runs: what was acknowledged to it, and how long that took."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter
from typing import Any

import bson
from pymongo.errors import PyMongoError

from compliance.mongo import Db, Document
from worker.testing.state import State, digest_of, key_of

FIELD = "counted_by_test"
THREADS = 2
PACE_SECONDS = 0.005  # between two writes of a thread: a script must be able to keep up with inserts


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a writer was told is written.

    A later write to the same field hides that one was lost: write to another field, or document, each time.

    Attributes:
        fields: What the document holds from then on; None where it is deleted.
    """

    collection: str
    id: Any
    fields: Mapping[str, Any] | None


Writer = Callable[[Db, int], Written | None]


@dataclass(slots=True)
class Application:
    """Threads that write at a steady pace until they are told to stop.

    Attributes:
        writer: Writes once; None counts up a field of a document that is there.
        documents: The collections and ids among which that one is chosen.
        counted: How often each was counted up and acknowledged.
        unknown: How often nobody knows.
        last: What each thread was told last of a field of a document.
        seconds: How long each write took.
        faults: What the writer raised that is no answer of the server.
    """

    database: Db
    writer: Writer | None
    documents: Sequence[tuple[str, Any]]
    counted: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    unknown: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    last: list[dict[tuple[str, bytes], Written]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, thread: int, ended: threading.Event) -> None:
        """Write until *ended*."""
        chosen, number = random.Random(thread), thread  # noqa: S311 - spreads writes, guards nothing
        mine: dict[tuple[str, bytes], Written] = {}
        with self.lock:
            self.last.append(mine)
        while not ended.wait(PACE_SECONDS):
            began = perf_counter()
            try:
                if self.writer is None:
                    self._count(*chosen.choice(self.documents))
                else:
                    written = self.writer(self.database, number)
                    if written is not None:
                        mine[(written.collection, key_of(written.id))] = _later(mine, written)
            except PyMongoError:
                pass  # it was not acknowledged
            except Exception as error:  # noqa: BLE001 - the thread of a test ends; who asked is told
                with self.lock:
                    self.faults.append(repr(error))
                return
            with self.lock:
                self.seconds.append(perf_counter() - began)
            number += THREADS

    def _count(self, collection: str, id_: Any) -> None:
        key = (collection, key_of(id_))
        try:
            done = self.database[collection].update_one(
                {"_id": id_}, {"$inc": {FIELD: 1}}, bypass_document_validation=True
            )
        except PyMongoError:
            with self.lock:
                self.unknown[key] += 1
            raise
        with self.lock:
            self.counted[key] += done.modified_count

    def find_lost(self, found: State) -> list[str]:
        """Return a sentence for each collection of *found* that does not hold what was acknowledged."""
        lost: dict[str, list[str]] = {}
        for (collection, key), times in self.counted.items():
            value = _document(found, collection, key).get(FIELD, 0)
            if not times <= value <= times + self.unknown[(collection, key)]:
                lost.setdefault(collection, []).append(f"{_id(key)} counts {value} instead of {times}")
        for (collection, key), written in self._told().items():
            fault = _fault(_document(found, collection, key), written)
            if fault:
                lost.setdefault(collection, []).append(f"{_id(key)} {fault}")
        return [
            f"{len(faults)} documents of {name} lost acknowledged writes ({'; '.join(faults[:5])})"
            for name, faults in sorted(lost.items())
        ]

    def _told(self) -> dict[tuple[str, bytes], list[Written]]:
        told: dict[tuple[str, bytes], list[Written]] = {}
        for mine in self.last:
            for key, written in mine.items():
                told.setdefault(key, []).append(written)
        return told

    def written_fields(self) -> dict[tuple[str, bytes], set[str]]:
        """Return which fields of which documents were written to; ``*`` for those that it inserted or deleted."""
        fields: dict[tuple[str, bytes], set[str]] = {}
        there = {(collection, key_of(id_)) for collection, id_ in self.documents}
        for key, written in self._told().items():
            for one in written:
                is_whole = one.fields is None or key not in there
                fields.setdefault(key, set()).update(["*"] if is_whole else one.fields or ())
        return fields


def _later(mine: Mapping[tuple[str, bytes], Written], written: Written) -> Written:
    """Return *written* with what was written to other fields of the document before."""
    before = mine.get((written.collection, key_of(written.id)))
    if before is None or before.fields is None or written.fields is None:
        return written
    return Written(collection=written.collection, id=written.id, fields={**before.fields, **written.fields})


def _document(state: State, collection: str, key: bytes) -> Document:
    """Return a document, also one that was moved to another collection; empty where there is none."""
    held = [state[collection], *state.values()] if collection in state else list(state.values())
    return next((one.documents[key] for one in held if key in one.documents), {})


def _fault(document: Document, written: Sequence[Written]) -> str | None:
    """Return what is wrong with *document*, where no thread was told last what it holds."""
    deleted = [one for one in written if one.fields is None]
    if deleted:
        return "is there again" if document and len(deleted) == len(written) else None
    if not document:
        return "is gone"
    names = {name for one in written for name in one.fields or {}}
    for name in sorted(names):
        told = [digest_of({"": one.fields[name]}) for one in written if one.fields and name in one.fields]
        if name not in document or digest_of({"": document[name]}) not in told:
            return f"does not hold its last {name}"
    return None


def _id(key: bytes) -> str:
    return f"_id {bson.decode(key)['_id']!r}"


@contextmanager
def writing(application: Application) -> Iterator[None]:
    """Let *application* write for the block."""
    ended = threading.Event()
    threads = [threading.Thread(target=application.work, args=(number, ended)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def p99(seconds: Sequence[float]) -> timedelta:
    """Return the time that 99 of 100 writes took at most."""
    ordered = sorted(seconds)
    return timedelta(seconds=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]) if ordered else timedelta()
