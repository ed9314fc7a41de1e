"""The canonical form of entries as it is compiled for those of one shape: a verification does little else.

Entries of one process differ in values, hardly in fields, and not in types. So a frame is made of one of them: all its
bytes that are not part of a value, such as types, names and lengths. An entry with the same frame has the same fields
in the same order, each once, with values of the same types and lengths; nothing else is in it, and its canonical form
is the same text with other values in it. What has another frame is read and encoded as ever.

Source: BSON specification 1.1; RFC 8785.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import leaf_hash
from compliance.audit.stored import read_stored

STRING, DOCUMENT, ARRAY, OBJECT_ID, BOOLEAN, DATE, NULL, INT32 = 0x02, 0x03, 0x04, 0x07, 0x08, 0x09, 0x0A, 0x10
MAX_DEPTH = 4
OFTEN = 8  # times; to compile a shape takes as long as to encode fifty entries
MAX_SHAPES = 500
MAX_ALIKE = 4  # shapes of one length

_Parts = list[bytes | int]  # text, and the numbers of values

_CODES = {OBJECT_ID: "12s", DATE: "q", INT32: "i"}  # of struct
_WRAPPED = {OBJECT_ID: (b'{"$oid":"', b'"}'), DATE: (b'{"$date":', b"}"), INT32: (b"", b"")}
_PLACES = (
    (STRING, ("_id",)),
    (STRING, ("writer", "key")),
    (STRING, ("writer", "stream")),
    (INT32, ("writer", "seq")),
    (DATE, ("created_at",)),
)
_NAME = re.compile(rb"[ !#-\[\]-~]+")  # what JSON writes as it is
_CONTROLS = bytes(range(0x20))


class Plain(NamedTuple):
    """What verification needs of an entry: its leaf hash, its id, its place in a stream, and its time."""

    leaf: bytes
    id: bytes
    key: bytes
    stream: bytes
    seq: int
    created_at: int
    prev: bytes | None


@dataclass(slots=True)
class Shapes:
    """The shapes of entries that were seen often."""

    _by_length: dict[int, list["Shape"]] = field(default_factory=dict)
    _seen: Counter[int] = field(default_factory=Counter)
    _count: int = 0

    def read(self, data: bytes) -> Plain | None:
        """Return what the entry *data* is, None where that has to be found out in another way."""
        for shape in self._by_length.get(len(data), ()):
            found = shape.read(data)
            if found is not None:
                return found
        return None

    def learn(self, data: bytes) -> None:
        """Take the shape of *data*, which MUST be a whole entry, if such are often read."""
        alike = self._by_length.get(len(data), [])
        self._seen[len(data)] += 1
        seen = self._seen[len(data)]
        is_due = seen >= OFTEN and seen.bit_count() == 1  # ever more rarely, for it may not be possible
        if not is_due or self._count >= MAX_SHAPES or len(alike) >= MAX_ALIKE:
            return
        shape = compile_shape(data)
        found = shape.read(data) if shape is not None else None
        if shape is not None and found is not None and found.leaf == entry_hash(read_stored(data)):
            self._by_length[len(data)] = [*alike, shape]
            self._count += 1


@dataclass(frozen=True, slots=True)
class Shape:
    """Entries with the same fields, and values of the same types and lengths.

    Attributes:
        unpack: Cuts a document of the right length into pieces of the frame and values, in turn.
        frame: The pieces of the frame.
        text: The canonical form, with places for the values.
        quotes: How many quotation marks it has without values.
        values: Which pieces are values, in the order of the canonical form.
        ids: Which pieces are object ids.
    """

    unpack: Callable[[bytes], tuple[Any, ...]]
    frame_of: Callable[[tuple[Any, ...]], tuple[bytes, ...]]
    frame: tuple[bytes, ...]
    text: bytes
    quotes: int
    values_of: Callable[[Sequence[Any]], tuple[Any, ...]]
    ids: tuple[int, ...]
    plain_of: Callable[[Sequence[Any]], tuple[Any, ...]]

    def read(self, data: bytes) -> Plain | None:
        """Return what *data*, which MUST have the right length, is if it has this shape."""
        pieces = self.unpack(data)
        if self.frame_of(pieces) != self.frame:
            return None
        values = [*pieces, None]
        for piece in self.ids:
            values[piece] = values[piece].hex().encode()
        text = self.text % self.values_of(values)
        if not _is_plain(text, self.quotes):
            return None
        return Plain(leaf_hash(text), *self.plain_of(values))


def _is_plain(text: bytes, quotes: int) -> bool:
    """Whether no value in *text*, which has that many quotes of its own, has to be written in JSON in another way."""
    is_simple = text.isascii() and text.count(b'"') == quotes and b"\\" not in text
    return is_simple and len(text.translate(None, _CONTROLS)) == len(text)


def compile_shape(data: bytes) -> Shape | None:
    """Return the shape of *data*, which MUST be a whole document; None where it is not of an entry as we write them."""
    draft = _Draft()
    try:
        parts = draft.document(data, 0, ())[0]
        plain = [draft.place(kind, *path) for kind, path in _PLACES]
    except (_Unusual, KeyError):
        return None
    prev = draft.places.get((STRING, "writer", "prev"), -1)  # None is behind the last piece
    frame = [number for number, piece in enumerate(draft.pieces) if isinstance(piece, bytes)]
    codes = (f"{len(piece)}s" if isinstance(piece, bytes) else piece for piece in draft.pieces)
    texts = (part.replace(b"%", b"%%") if isinstance(part, bytes) else draft.marker(part) for part in parts)
    return Shape(
        unpack=struct.Struct("<" + "".join(codes)).unpack,
        frame_of=itemgetter(*frame),
        frame=tuple(piece for piece in draft.pieces if isinstance(piece, bytes)),
        text=b"".join(texts),
        quotes=sum(part.count(b'"') for part in parts if isinstance(part, bytes)),
        values_of=itemgetter(*(part for part in parts if isinstance(part, int))),
        ids=tuple(number for number, piece in enumerate(draft.pieces) if piece == _CODES[OBJECT_ID]),
        plain_of=itemgetter(*plain, prev),
    )


class _Unusual(Exception):
    """A document has something of which no shape is made."""


@dataclass(slots=True)
class _Draft:
    """A shape while it is made.

    Attributes:
        pieces: Bytes of the frame, and codes of `struct` for values, in the order of the document.
        places: Which piece is the value at a path of names, with its type before them.
    """

    pieces: list[bytes | str] = field(default_factory=list)
    places: dict[tuple[int | str, ...], int] = field(default_factory=dict)

    def document(self, data: bytes, begin: int, path: tuple[str, ...], *, is_array: bool = False) -> tuple[_Parts, int]:
        """Take the document at *begin*; return its canonical form and where it ends."""
        end = begin + _size(data, begin)
        self._take(data[begin : begin + 4])
        at, found = begin + 4, dict[bytes, _Parts]()
        while at < end - 1:
            stop = data.index(b"\0", at)
            name = data[at + 1 : stop]
            self._take(data[at : stop + 1])
            is_known = name in found or name.startswith(b"$") or len(path) >= MAX_DEPTH
            if is_known or not _NAME.fullmatch(name) or (is_array and name != b"%d" % len(found)):
                raise _Unusual
            found[name], at = self._value(data[at], data, stop + 1, (*path, name.decode()))
        self._take(data[end - 1 : end])
        return _array(found.values()) if is_array else _object(found), end

    def place(self, kind: int, *path: str) -> int:
        """Return which piece is the value at *path*, which has to be of that type."""
        return self.places[kind, *path]

    def marker(self, piece: int) -> bytes:
        """Return what stands for a value in a format."""
        return b"%d" if self.pieces[piece] in (_CODES[INT32], _CODES[DATE]) else b"%b"

    def _value(self, kind: int, data: bytes, at: int, path: tuple[str, ...]) -> tuple[_Parts, int]:
        found, end = self._constant(kind, data, at), at + (kind == BOOLEAN)
        if found is not None:
            self._take(data[at:end])
            return [found], end
        if kind in (DOCUMENT, ARRAY):
            return self.document(data, at, path, is_array=kind == ARRAY)
        if kind == STRING:
            end = at + 4 + _size(data, at)
            self._take(data[at : at + 4])
            slot = self._slot(kind, path, f"{end - at - 5}s")
            self._take(data[end - 1 : end])
            return [b'"', slot, b'"'], end
        if kind not in _CODES:
            raise _Unusual
        before, behind = _WRAPPED[kind]
        return [before, self._slot(kind, path, _CODES[kind]), behind], at + struct.calcsize(f"<{_CODES[kind]}")

    def _constant(self, kind: int, data: bytes, at: int) -> bytes | None:
        """Return the canonical form of a value that is part of the frame."""
        if kind == BOOLEAN:
            return b"true" if data[at] else b"false"
        return b"null" if kind == NULL else None

    def _take(self, data: bytes) -> None:
        """Make *data* part of the frame."""
        last = self.pieces.pop() if self.pieces and isinstance(self.pieces[-1], bytes) else b""
        self.pieces.append(last + data if isinstance(last, bytes) else data)

    def _slot(self, kind: int, path: tuple[str, ...], code: str) -> int:
        self.pieces.append(code)
        self.places[kind, *path] = len(self.pieces) - 1
        return len(self.pieces) - 1


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little", signed=True)


def _object(fields: dict[bytes, _Parts]) -> _Parts:
    named = ([b'"' + name + b'":', *fields[name]] for name in sorted(fields))
    return [b"{", *_joined(named), b"}"]


def _array(elements: Iterable[_Parts]) -> _Parts:
    return [b"[", *_joined(elements), b"]"]


def _joined(items: Iterable[_Parts]) -> Iterator[bytes | int]:
    for number, item in enumerate(items):
        if number:
            yield b","
        yield from item
