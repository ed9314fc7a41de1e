"""Look for identifiers of people in raw documents, wherever they stand, declared or not.

One pass serves any number of people: every token of the bytes that could be an identifier is looked up in a set.
Covered forms: ObjectId and its 24 hexadecimal digits, UUID as binary and as text, e-mail addresses whatever their case
and Unicode form, other text identifiers as they stand; the same within base64, hexadecimal digits and percent-encoding,
where they are at least 12 bytes long there with what stands around them. What is compressed or encrypted is not looked
into, nor are shorter text identifiers than 16 characters found as a part of a text.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import bson
from bson import Binary, ObjectId
from bson.binary import UUID_SUBTYPE
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.datamap.subject import Identity
from compliance.erasure.packed import hex_runs, layers, uuid_texts
from compliance.mongo import Db, Document, driver_errors

BATCH_DOCS = 1000
BORDER_BYTES = 1024  # longer than any identifier in any form that is looked for
CHUNKS = ".chunks"
READ_AHEAD_BYTES = 64 * 1024  # of less it is not worth a thread
BUCKETS, TIME_SERIES = "system.buckets.", "timeseries"
OF_THE_SERVER = {
    "system.views": "holds the definitions of views, which were read",
    "system.profile": "of the profiler; see the surfaces of the certificate",
}

_OBJECT_ID = re.compile(rb"(?s)\x07(?=[^\x00]{0,256}\x00(.{12}))")
_UUID = re.compile(rb"(?s)\x05(?=[^\x00]{0,256}\x00\x10\x00\x00\x00[\x03\x04](.{16}))")
_HEX_DIGITS, _UUID_DIGITS = 24, 32
FEW = 8  # tokens that are looked for one after the other: faster than to name every token there is
_LOCAL_REVERSED = re.compile(rb"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\x80-\xff-]{1,256}")
_AT = re.compile(rb"@")
_DOMAIN = re.compile(rb"[A-Za-z0-9.\x80-\xff-]{1,256}")
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
_SEPARATOR = re.compile(r"[!#$&'*/=?^`{|}~]")
_OPAQUE_RUN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.:-]{15,}")
_FIRST = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z0-9]")
_BEHIND = re.compile(rb"(?![A-Za-z0-9])")
_NO_PART_OF_A_WORD = "PSZC"  # Unicode categories: punctuation, symbols, separators, control
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_LONG_ENOUGH, _LONGEST = 16, 128
_OBJECT_ID_BYTES = 12


class Finder(Protocol):
    """Recognises identifiers of people."""

    def found_in(self, raw: bytes) -> bool:
        """Whether any identifier stands in *raw*, the bytes of one or many BSON documents."""
        ...


@dataclass(frozen=True, slots=True)
class Needles:
    """What to look for; compiled once from any number of identities.

    Attributes:
        tokens: Ids as bytes.
        digits: Ids as texts of a fixed form, in lower case.
        domains: Of the e-mail addresses.
        at: Where one of these addresses may stand.
        texts: Other ids.
    """

    tokens: frozenset[bytes]
    digits: frozenset[bytes]
    emails: frozenset[str] = field(repr=False)
    domains: frozenset[str] = field(default=frozenset(), repr=False)
    at: re.Pattern[bytes] = field(default=_AT, repr=False)
    texts: tuple[bytes, ...] = field(default=(), repr=False)

    def found_in(self, raw: bytes) -> bool:
        """Whether any identifier stands in *raw*, the bytes of one or many BSON documents, as it is or packed."""
        return any(map(self._stands_in, layers(raw)))

    def _stands_in(self, raw: bytes) -> bool:
        return (
            any(_stands_in(raw, text) for text in self.texts)
            or _any_of(self.tokens, raw, _tokens)
            or (bool(self.digits) and _any_of(self.digits, raw.lower(), _digits))
            or self._has_address(raw)
        )

    def _has_address(self, raw: bytes) -> bool:
        return bool(self.emails) and any(
            normalise(found) in self.emails for found in emails_in(raw, self.at, self.domains)
        )


def compile_needles(identities: Iterable[Identity]) -> Needles:
    """Return the needles of *identities*."""
    tokens: set[bytes] = set()
    digits: set[bytes] = set()
    emails: set[str] = set()
    texts: set[bytes] = set()
    for value in (value for identity in identities for value in identity.values.values()):
        if isinstance(value, ObjectId):
            tokens.add(value.binary)
            digits.add(str(value).encode())
        elif isinstance(value, bytes | UUID):
            uuid = value if isinstance(value, UUID) else UUID(bytes=bytes(value))
            tokens.add(uuid.bytes)
            digits |= {str(uuid).encode(), uuid.hex.encode()}
        elif _ADDRESS.fullmatch(str(value)):
            emails.add(normalise(str(value)))
        else:
            texts.add(_text_needle(str(value).encode()))
    domains = frozenset(address.rpartition("@")[2] for address in emails)
    return Needles(
        tokens=frozenset(tokens),
        digits=frozenset(digits),
        emails=frozenset(emails),
        domains=domains,
        at=_beginning(domains),
        texts=tuple(sorted(texts)),
    )


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


def _any_of(wanted: frozenset[bytes], raw: bytes, named: Callable[[bytes], Iterator[bytes]]) -> bool:
    if len(wanted) <= FEW:
        return any(token in raw for token in wanted)
    return not wanted.isdisjoint(named(raw))


def _tokens(raw: bytes) -> Iterator[bytes]:
    for pattern in (_OBJECT_ID, _UUID):
        yield from (match[1] for match in pattern.finditer(raw))


def _digits(raw: bytes) -> Iterator[bytes]:
    yield from (text.lower() for text in uuid_texts(raw))
    for found in hex_runs(raw):
        run = found.lower()  # longer than an id where a word before it ends in a hexadecimal digit, as "uid" does
        for size in (_HEX_DIGITS, _UUID_DIGITS):
            yield from (run[start : start + size] for start in range(len(run) - size + 1))


def ids_in(raw: bytes) -> Iterator[ObjectId | Binary]:
    """Yield whatever in *raw* could be an ObjectId or a UUID, as requests hold it."""
    for token in _tokens(raw):
        yield ObjectId(token) if len(token) == _OBJECT_ID_BYTES else Binary(token, UUID_SUBTYPE)
    for text in _digits(raw):
        yield ObjectId(text.decode()) if len(text) == _HEX_DIGITS else Binary.from_uuid(UUID(text.decode()))


def long_ids_in(raw: bytes) -> Iterator[str]:
    """Yield whatever in *raw* could be an opaque id that may stand within a text, and is no part of a longer word."""
    for found in _OPAQUE_RUN.finditer(raw):
        run = found[0]
        ends = [match.start() for match in _BEHIND.finditer(run)]
        for match in _FIRST.finditer(run):
            start = match.start()
            first, behind = bisect_left(ends, start + _LONG_ENOUGH), bisect_right(ends, start + _LONGEST)
            yield from (run[start:end].decode() for end in ends[first:behind])


def emails_in(raw: bytes, at: re.Pattern[bytes] = _AT, domains: frozenset[str] | None = None) -> Iterator[str]:
    """Yield what could be an address, and in ``to=ann@x.org`` also what stands behind the separator.

    Goes from one ``@`` to the next, so that text without any costs one look. With *domains*, normalised, only addresses
    that could be in one of them; *at* may then leave out what none of them begins like.
    """
    for found in at.finditer(raw):
        start = found.start()
        domain = _DOMAIN.match(raw, start + 1)
        if domain and (domains is None or _could_be(domain[0], domains)):
            local = _LOCAL_REVERSED.match(raw[max(0, start - 256) : start][::-1])
            if local:
                yield from _readings(local[0][::-1].decode(errors="replace"), domain[0].decode(errors="replace"))


def _could_be(domain: bytes, domains: frozenset[str]) -> bool:
    """Whether *domain*, or what stands before its first letter that is not ASCII, is one of *domains*."""
    text = domain.decode(errors="replace")
    if text.isascii():
        return text.rstrip(" .-").lower() in domains
    return not domains.isdisjoint((_NOT_ASCII.split(text)[0], normalise(_spaced(text).partition(" ")[0])))


def _beginning(domains: Iterable[str]) -> re.Pattern[bytes]:
    """Return what an address in one of *domains* has around its ``@``: a first letter of theirs, or none of ASCII."""
    letters = {unicodedata.normalize("NFKD", domain)[:1] for domain in domains}
    ascii_ones = "".join(sorted(letter + letter.upper() for letter in letters if letter.isascii()))
    either = [rb"[\xc2-\xf4][\x80-\xbf]", *([f"[{re.escape(ascii_ones)}]".encode()] if ascii_ones else [])]
    return re.compile(b"@(?=" + b"|".join(either) + b")")


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

    Views are not read: the collections below them are. How a collection is defined counts as one document of it: the
    pipeline of a view and a validator may name somebody, too. *spares* tells of a document of a collection whether it
    is as it should be all the same. *check* is called now and then, and may end it by an error.
    """
    skipped = set(skip)
    counts = Counter(_defined_by(database, needles))
    for name in collection_names(database):
        if name not in skipped:
            found = _sweep_named(database, name, needles, check)
            counts[name] += sum(1 for document in found if not spares(name, document))
    return {name: count for name, count in sorted(counts.items()) if count}


def _defined_by(database: Db, needles: Finder) -> list[str]:
    """Return the collections and views in whose name or options a needle stands."""
    with driver_errors():
        listed = list(database.list_collections())
    return [info["name"] for info in listed if needles.found_in(bson.encode({info["name"]: info["options"]}))]


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
    return sorted(name for name, why in _listed(database) if why is None)


def unread(database: Db) -> dict[str, str]:
    """Return what a sweep of *database* does not read, and why."""
    return {name: why for name, why in sorted(_listed(database)) if why is not None}


def _listed(database: Db) -> list[tuple[str, str | None]]:
    with driver_errors():
        listed = list(database.list_collections())
    series = {f"{BUCKETS}{info['name']}" for info in listed if info["type"] == TIME_SERIES}
    return [(info["name"], _why_not(info, series)) for info in listed]


def _why_not(info: Mapping[str, Any], series: set[str]) -> str | None:
    """Return why a collection is not read; None where it is."""
    name = info["name"]
    if info["type"] == "view":
        return "a view stores nothing; its definition was read"
    if name in series:
        return "read as the time series whose measurements it stores"
    return OF_THE_SERVER.get(name, "the server's own" if name.startswith("system.") else None)


def _split(batch: bytes) -> Iterator[Any]:
    start = 0
    while start < len(batch):
        size = int.from_bytes(batch[start : start + 4], "little")
        yield RawBSONDocument(batch[start : start + size])
        start += size
