"""Look for identifiers of people in raw documents, wherever they stand, declared or not.

One pass serves any number of people: every token of the bytes that could be an identifier is looked up in a set.
Covered forms: ObjectId and its 24 hexadecimal digits, UUID as binary and as text, e-mail addresses whatever their case
and Unicode form, other text identifiers as they stand. Encoded forms (base64, compression) are not looked into.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol
from uuid import UUID

import bson
from bson import Binary, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.datamap.subject import Identity
from compliance.mongo import Db, Document, driver_errors

BATCH_DOCS = 1000
BORDER_BYTES = 1024  # longer than any identifier in any form that is looked for
CHUNKS = ".chunks"
READ_AHEAD_BYTES = 64 * 1024  # of less it is not worth a thread
UNREADABLE = ("view",)

_OBJECT_ID = re.compile(rb"(?s)\x07(?=[^\x00]{0,256}\x00(.{12}))")
_UUID = re.compile(rb"(?s)\x05(?=[^\x00]{0,256}\x00\x10\x00\x00\x00[\x03\x04](.{16}))")
_HEX_DIGITS = 24
_MARKS = bytes(
    ord("h") if chr(byte) in "0123456789abcdefABCDEF" else ord("-") if byte == ord("-") else 0 for byte in range(256)
)
_HEX_MARKS = b"h" * _HEX_DIGITS
_UUID_MARKS = b"-".join(b"h" * digits for digits in (8, 4, 4, 4, 12))
_RUN = re.compile(b"h+")
_LOCAL_REVERSED = re.compile(rb"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\x80-\xff-]{1,256}")
_DOMAIN = re.compile(rb"[A-Za-z0-9.\x80-\xff-]{1,256}")
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
_SEPARATOR = re.compile(r"[!#$&'*/=?^`{|}~]")
_OPAQUE_RUN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.:-]{15,}")
_FIRST = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z0-9]")
_BEHIND = re.compile(rb"(?![A-Za-z0-9])")
_NO_PART_OF_A_WORD = "PSZC"  # Unicode categories: punctuation, symbols, separators, control
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_LONG_ENOUGH, _LONGEST = 16, 128
_OBJECT_ID_BYTES, _UUID_BYTES = 12, 16


class Finder(Protocol):
    """Recognises identifiers of people."""

    def found_in(self, raw: bytes) -> bool:
        """Whether any identifier stands in *raw*, the bytes of one or many BSON documents."""
        ...


@dataclass(frozen=True, slots=True)
class Needles:
    """What to look for; compiled once from any number of identities.

    Attributes:
        domains: Of the addresses.
    """

    tokens: frozenset[bytes]
    emails: frozenset[str] = field(repr=False)
    domains: frozenset[str] = field(repr=False)
    texts: tuple[bytes, ...] = field(default=(), repr=False)

    def found_in(self, raw: bytes) -> bool:
        """Whether any identifier stands in *raw*, the bytes of one or many BSON documents."""
        return (
            any(_stands_in(raw, text) for text in self.texts)
            or not all(map(self.tokens.isdisjoint, _token_groups(raw)))
            or any(normalise(found) in self.emails for found in emails_in(raw, self.domains))
        )


def compile_needles(identities: Iterable[Identity]) -> Needles:
    """Return the needles of *identities*."""
    tokens: set[bytes] = set()
    emails: set[str] = set()
    texts: set[bytes] = set()
    for value in (value for identity in identities for value in identity.values.values()):
        if isinstance(value, ObjectId):
            tokens |= {value.binary, str(value).encode()}
        elif isinstance(value, bytes | UUID):
            uuid = value if isinstance(value, UUID) else UUID(bytes=bytes(value))
            tokens |= {uuid.bytes, str(uuid).encode(), uuid.hex.encode()}
        elif _ADDRESS.fullmatch(str(value)):
            emails.add(normalise(str(value)))
        else:
            texts.add(_text_needle(str(value).encode()))
    domains = frozenset(address.rpartition("@")[2] for address in emails)
    return Needles(frozenset(tokens), frozenset(emails), domains, tuple(sorted(texts)))


def _text_needle(text: bytes) -> bytes:
    """A short id must be a whole BSON string; a long one may stand anywhere."""
    return text if len(text) >= _LONG_ENOUGH else (len(text) + 1).to_bytes(4, "little") + text + b"\x00"


def _stands_in(raw: bytes, text: bytes) -> bool:
    """Whether *text* stands in *raw* and is no part of a longer word: ``customer-0001`` is not ``customer-00012``."""
    start = raw.find(text)
    while start >= 0:
        before, after = raw[max(0, start - 1) : start], raw[start + len(text) : start + len(text) + 1]
        if text.endswith(b"\x00") or not (before.isalnum() or after.isalnum()):
            return True
        start = raw.find(text, start + 1)
    return False


def normalise(address: str) -> str:
    """Return the form by which e-mail addresses are compared: trimmed, NFKC, case folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).casefold()).strip(" .-")


def _token_groups(raw: bytes) -> Iterator[Iterable[bytes]]:
    yield _OBJECT_ID.findall(raw)
    yield _UUID.findall(raw)
    marks = raw.translate(_MARKS)  # so that texts are looked for at the speed of memory: most bytes are no part of any
    yield (raw[at : at + len(_UUID_MARKS)].lower() for at in _places(marks, _UUID_MARKS))
    for start, end in _runs(marks):
        run = raw[start:end].lower()  # longer than an id where a word before it ends in a hexadecimal digit, as "uid"
        yield (run[first : first + _HEX_DIGITS] for first in range(len(run) - _HEX_DIGITS + 1))


def _places(marks: bytes, wanted: bytes) -> Iterator[int]:
    at = marks.find(wanted)
    while at >= 0:
        yield at
        at = marks.find(wanted, at + 1)


def _runs(marks: bytes) -> Iterator[tuple[int, int]]:
    """Yield where hexadecimal digits begin and end that are enough for an ObjectId."""
    start = marks.find(_HEX_MARKS)
    while start >= 0:
        found = _RUN.match(marks, start)
        end = found.end() if found else start + _HEX_DIGITS
        yield start, end
        start = marks.find(_HEX_MARKS, end)


def ids_in(raw: bytes) -> Iterator[ObjectId | Binary]:
    """Yield whatever in *raw* could be an ObjectId or a UUID, as requests hold it."""
    for token in chain.from_iterable(_token_groups(raw)):
        if len(token) in (_OBJECT_ID_BYTES, _HEX_DIGITS):
            yield ObjectId(token if len(token) == _OBJECT_ID_BYTES else token.decode())
        else:
            yield Binary.from_uuid(UUID(bytes=token) if len(token) == _UUID_BYTES else UUID(token.decode()))


def long_ids_in(raw: bytes) -> Iterator[str]:
    """Yield whatever in *raw* could be an opaque id that may stand within a text, and is no part of a longer word."""
    for found in _OPAQUE_RUN.finditer(raw):
        run = found[0]
        ends = [match.start() for match in _BEHIND.finditer(run)]
        for match in _FIRST.finditer(run):
            start = match.start()
            first, behind = bisect_left(ends, start + _LONG_ENOUGH), bisect_right(ends, start + _LONGEST)
            yield from (run[start:end].decode() for end in ends[first:behind])


def emails_in(raw: bytes, domains: frozenset[str] | None = None) -> Iterator[str]:
    """Yield what could be an address, and in ``to=ann@x.org`` also what stands behind the separator.

    Goes from one ``@`` to the next, so that text without any costs one look. With *domains*, addresses of others may be
    left out.
    """
    if domains is not None and not domains:
        return
    if b"%40" in raw:  # as in the query of a URL
        raw = raw.replace(b"%40", b"@")
    at = raw.find(b"@")
    while at >= 0:
        domain = _DOMAIN.match(raw, at + 1)
        is_other = domain is None or (domains is not None and _is_of_none(domain[0], domains))
        local = None if is_other else _LOCAL_REVERSED.match(raw[max(0, at - 256) : at][::-1])
        if local and domain:
            yield from _readings(local[0][::-1].decode(errors="replace"), domain[0].decode(errors="replace"))
        at = raw.find(b"@", at + 1)


def _is_of_none(domain: bytes, domains: frozenset[str]) -> bool:
    """Whether *domain*, as it stands within a text, is certainly none of *domains*."""
    return domain.isascii() and domain.decode().lower().strip(" .-") not in domains


def _readings(local: str, domain: str) -> Iterator[str]:
    """Yield the address without quotation marks and dashes around it, and once more behind each ASCII separator.

    Also cut out of letters that are not ASCII: scripts without spaces between words stand right beside an address.
    """
    local, domain = _spaced(local).rpartition(" ")[2], _spaced(domain).partition(" ")[0]
    for piece in (local, *(local[separator.end() :] for separator in _SEPARATOR.finditer(local))):
        yield f"{piece}@{domain}"
        yield f"{piece.lstrip('_')}@{domain}"
    if not (local + domain).isascii():
        before, after = _NOT_ASCII.split(local)[-1], _NOT_ASCII.split(domain)[0]
        yield from (f"{before}@{domain}", f"{local}@{after}", f"{before}@{after}")


def _spaced(text: str) -> str:
    if text.isascii():
        return text
    return "".join(
        " " if not char.isascii() and unicodedata.category(char)[0] in _NO_PART_OF_A_WORD else char for char in text
    )


def sweep_collection(
    collection: Collection[Document],
    needles: Finder,
    *,
    query: Mapping[str, Any] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    """Yield ``{_id, ...}`` of every document of *collection* in which a needle stands; memory stays at one batch.

    With *query*, of those that it finds. *check* is called for every batch and ends the sweep by what it raises.
    """
    with driver_errors():
        batches: Iterator[Any] = collection.find_raw_batches(
            query or {}, batch_size=BATCH_DOCS
        )  # of bytes; typed as documents
        for batch in _read_ahead(batches):
            check()
            if needles.found_in(batch):
                yield from (document for document in _split(batch) if needles.found_in(document.raw))


def _read_ahead(batches: Iterator[bytes]) -> Iterator[bytes]:
    """Yield *batches*; from the second on each is fetched while the one before is looked at."""
    batch = next(batches, None)
    with ThreadPoolExecutor(
        max_workers=1, thread_name_prefix="sweep"
    ) as fetching:  # starts no thread before it is used
        while batch is not None:
            following = fetching.submit(next, batches, None) if len(batch) >= READ_AHEAD_BYTES else None
            yield batch
            batch = following.result() if following is not None else next(batches, None)


def sweep(
    database: Db,
    needles: Finder,
    *,
    skip: Iterable[str] = (),
    spares: Callable[[str, Any], bool] = lambda *_: False,
    check: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Return how many documents of each collection of *database* hold a needle; collections without any are absent.

    Views are not read: the collections below them are. *spares* tells of a document of a collection whether it is as it
    should be all the same. *check* is called now and then, and may end it by an error.
    """
    skipped = set(skip)
    counts = {
        name: sum(1 for found in _sweep_named(database, name, needles, check) if not spares(name, found))
        for name in collection_names(database)
        if name not in skipped
    }
    return {name: count for name, count in counts.items() if count}


def _sweep_named(database: Db, name: str, needles: Finder, check: Callable[[], None]) -> Iterator[Any]:
    yield from sweep_collection(database[name], needles, check=check)
    if name.endswith(CHUNKS):
        yield from sweep_borders(database[name], needles, check=check)


def sweep_borders(
    chunks: Collection[Document], needles: Finder, *, check: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """Yield the second of two successive *chunks* of a file where a needle stands across the border between them."""
    before: tuple[Any, bytes] = (None, b"")
    wanted = {"files_id": 1, "n": 1, "data": 1}
    with driver_errors():
        for number, chunk in enumerate(chunks.find({}, wanted, sort=[("files_id", 1), ("n", 1)], batch_size=16)):
            if number % BATCH_DOCS == 0:
                check()
            data = chunk.get("data")
            if not isinstance(data, bytes):
                continue
            border = before[1] + data[:BORDER_BYTES] if before[0] == chunk.get("files_id") else b""
            if border and needles.found_in(bson.encode({"": border})) and not _in_one_part(before[1], data, needles):
                yield chunk
            before = (chunk.get("files_id"), data[-BORDER_BYTES:])


def _in_one_part(end: bytes, data: bytes, needles: Finder) -> bool:
    """Whether what was found stands on one side of the border, where the chunk itself was found already."""
    return any(needles.found_in(bson.encode({"": part})) for part in (end, data[:BORDER_BYTES]))


def collection_names(database: Db) -> list[str]:
    """Return the collections of *database* that are read, in order."""
    with driver_errors():
        return sorted(
            info["name"]
            for info in database.list_collections()
            if info["type"] not in UNREADABLE and not info["name"].startswith("system.")
        )


def _split(batch: bytes) -> Iterator[Any]:
    start = 0
    while start < len(batch):
        size = int.from_bytes(batch[start : start + 4], "little")
        yield RawBSONDocument(batch[start : start + size])
        start += size
