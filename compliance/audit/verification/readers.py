"""Entries as verification needs them: their leaf hash, their place in a stream, and their time.

Reading and hashing is nearly all of the work, so it can be done in other processes.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from compliance.audit.batch import MAX_LEAVES
from compliance.audit.compiled import Shapes
from compliance.audit.leaf import stored_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.stored import read_each, split, stored_entries
from compliance.audit.verification.streams import Place
from compliance.mongo import Databases, Document, driver_errors, open_client

T = TypeVar("T")


class Record(NamedTuple):
    """An entry as it is stored now.

    Attributes:
        leaf: Its leaf hash; None for one that holds what no entry can hold.
        place: Key and name of its stream; None where it has none that could be read.
        created_at: Milliseconds since 1970.
    """

    leaf: bytes | None
    place: Place | None
    seq: int
    prev: str | None
    created_at: int


Records = dict[str, Record]
Row = tuple[str, bytes | None, Place | None, int, str | None, int]
"""An id and a `Record`, in a form that goes from one process to another in a third of the time."""

_SHAPES = Shapes()  # what this process has learned


@dataclass(frozen=True, slots=True)
class Readers:
    """Reads entries ahead of whoever needs them.

    Attributes:
        ahead: How many questions may be under way.
    """

    ahead: int
    _pool: Executor
    _read: Any

    def submit(self, ids: Sequence[str]) -> Callable[[], Records]:
        """Begin to read the entries with these ids; return what waits for them."""
        rows: Future[list[Row]] = self._pool.submit(self._read, list(ids))
        return lambda: _records(rows.result())


@dataclass(frozen=True, slots=True)
class Parallel:
    """Processes that read, and the connection string that they read with."""

    uri: str = field(repr=False)
    processes: int


@contextmanager
def reading(databases: Databases, parallel: Parallel | None) -> Iterator[Readers]:
    """Read entries of *databases* for the block, by a thread of this process or in parallel."""
    if parallel is None:
        with ThreadPoolExecutor(1) as thread:
            yield Readers(1, thread, partial(_read, databases))
        return
    context = multiprocessing.get_context("spawn")
    connect = partial(_connect, parallel.uri, databases.name)
    with ProcessPoolExecutor(parallel.processes, mp_context=context, initializer=connect) as pool:
        yield Readers(2 * parallel.processes, pool, _read_there)


def read(databases: Databases, ids: Sequence[str]) -> Records:
    """Return what the entries with these ids are now; one that is gone is left out."""
    return _records(_read(databases, ids))


def _records(rows: Iterable[Row]) -> Records:
    return {row[0]: Record._make(row[1:]) for row in rows}


def _read(databases: Databases, ids: Sequence[str]) -> list[Row]:
    with driver_errors():
        found = stored_entries(databases).find_raw_batches({"_id": {"$in": list(ids)}}, batch_size=MAX_LEAVES + 1)
        answers = [cast("bytes", answer) for answer in found]
    return [row for answer in answers for row in read_rows(answer)]


def read_rows(data: bytes) -> Iterator[Row]:
    """Yield what the entries in *data* are, which are one behind the other."""
    others = []
    for raw in split(data):
        plain = _SHAPES.read(raw)
        if plain is None:
            others.append(raw)
            continue
        leaf, id_, key, stream, seq, created_at, prev = plain
        yield id_.decode(), leaf, _place(key, stream), seq, prev.decode() if prev is not None else None, created_at
    for raw, (other_id, document) in zip(others, read_each(b"".join(others)), strict=True):
        if document is not None:
            _SHAPES.learn(raw)
        if other_id is not None:
            yield other_id, *to_record(document)


@lru_cache(maxsize=10_000)
def _place(key: bytes, stream: bytes) -> Place:
    return key.decode(), stream.decode()


def to_record(document: Document | None) -> Record:
    """Return what verification needs of *document*, whatever was made of it."""
    if document is None:
        return Record(None, None, 0, None, 0)
    try:
        leaf = leaf_hash(stored_bytes(document))
    except (TypeError, ValueError):
        leaf = None
    try:
        writer = document["writer"]
        place, seq, prev = (str(writer["key"]), str(writer["stream"])), int(writer["seq"]), writer["prev"]
        created_at = int(document["created_at"])
    except (KeyError, TypeError, ValueError):
        return Record(leaf, None, 0, None, 0)
    return Record(leaf, place, seq, prev if isinstance(prev, str) else None, created_at)


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield *items*, so many at a time."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


_databases: list[Databases] = []  # of a process that reads for another one


def _connect(uri: str, name: str) -> None:
    _databases.append(Databases(open_client(uri, app_name="compliance-verify"), name))


def _read_there(ids: Sequence[str]) -> list[Row]:
    return _read(_databases[0], ids)
