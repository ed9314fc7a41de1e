"""Entries as verification needs them: their leaf hash, their place in a stream, and their time.

Reading and hashing is nearly all of the work, so it can be done in other processes.
"""

import multiprocessing
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeVar

from compliance.audit.answers import find_entries
from compliance.audit.batch import MAX_LEAVES
from compliance.audit.compiled import Shapes
from compliance.audit.leaf import stored_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.stored import read_each
from compliance.audit.verification.streams import Place
from compliance.mongo import Databases, Document, open_client

T = TypeVar("T")


Record = tuple[bytes | None, Place | None, int, bytes | None, int]
"""An entry as it is stored now: plain, for nearly all of a verification is to make these and hand them on.

Its leaf hash, None for one that holds what no entry can hold; its stream and its number in it, None and 0 where they
cannot be read; what it names as the hash of the entry before it; its time in milliseconds since 1970.
"""

Records = dict[str, Record]

UNREADABLE: Record = (None, None, 0, None, 0)

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
        records: Future[Records] = self._pool.submit(self._read, list(ids))
        return records.result


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
            yield Readers(1, thread, partial(read, databases))
        return
    context = multiprocessing.get_context("spawn")
    connect = partial(_connect, parallel.uri, databases.name)
    with ProcessPoolExecutor(parallel.processes, mp_context=context, initializer=connect) as pool:
        yield Readers(2 * parallel.processes, pool, _read_there)


def read(databases: Databases, ids: Sequence[str]) -> Records:
    """Return what the entries with these ids are now; one that is gone is left out."""
    answers = find_entries(databases, {"_id": {"$in": list(ids)}}, at_once=MAX_LEAVES + 1)
    return {id_: record for documents in answers for id_, record in read_records(documents)}


def read_records(documents: Iterable[bytes]) -> Iterator[tuple[str, Record]]:
    """Yield what each of *documents* is, by its id."""
    others = []
    for raw in documents:
        plain = _SHAPES.read(raw)
        if plain is None:
            others.append(raw)
            continue
        leaf, id_, key, stream, seq, created_at, prev = plain
        yield id_.decode(), (leaf, _place(key, stream), seq, _hash(prev) if prev else None, created_at)
    for raw, (other_id, document) in zip(others, read_each(b"".join(others)), strict=True):
        if document is not None:
            _SHAPES.learn(raw)
        if other_id is not None:
            yield other_id, to_record(document)


@lru_cache(maxsize=10_000)
def _place(key: bytes, stream: bytes) -> Place:
    return key.decode(), stream.decode()


def to_record(document: Document | None) -> Record:
    """Return what verification needs of *document*, whatever was made of it."""
    if document is None:
        return UNREADABLE
    try:
        leaf = leaf_hash(stored_bytes(document))
    except (TypeError, ValueError):
        leaf = None
    try:
        writer = document["writer"]
        place, seq, prev = (str(writer["key"]), str(writer["stream"])), int(writer["seq"]), writer["prev"]
        created_at = int(document["created_at"])
    except (KeyError, TypeError, ValueError):
        return leaf, None, 0, None, 0
    return leaf, place, seq, _hash(prev) if isinstance(prev, str) else None, created_at


def _hash(text: str | bytes) -> bytes | None:
    try:
        return a2b_base64(text)
    except ValueError:
        return None


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield *items*, so many at a time."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


_databases: list[Databases] = []  # of a process that reads for another one


def _connect(uri: str, name: str) -> None:
    _databases.append(Databases(open_client(uri, app_name="compliance-verify"), name))


def _read_there(ids: Sequence[str]) -> Records:
    return read(_databases[0], ids)
