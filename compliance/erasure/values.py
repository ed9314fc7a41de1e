"""The forms in which documents state an id: its BSON types, its text, its place within a longer text; pure."""

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from bson import Binary, Int64, ObjectId

from compliance.datamap.paths import values_along
from compliance.datamap.person import KeyType
from compliance.datamap.rule import Encoding
from compliance.datamap.subject import to_text

MOST_UNPACKED_BYTES = 64 * 1024 * 1024
_MEANS_SOMETHING = re.compile(r"([.^$*+?()\[\]{}|\\])")
_NO_PART_OF_AN_ID = "(?![A-Za-z0-9_.:-])"
_LONGEST_INDEX = 10


def forms_of(value: Any, stored: Sequence[KeyType]) -> list[Any]:
    """Return *value* in each of the BSON types *stored* in which it can be said; as it is where none is given."""
    return [form for kind in stored for form in _as_type(to_text(value), kind)] if stored else [value]


def _as_type(text: str, kind: KeyType) -> Iterator[Any]:
    match kind:
        case KeyType.STRING:
            yield text
        case KeyType.OBJECT_ID:
            yield from (ObjectId(text),) if ObjectId.is_valid(text) else ()
        case KeyType.UUID:
            with suppress(ValueError):
                yield Binary.from_uuid(UUID(text))
        case KeyType.LONG:
            yield from (Int64(text),) if text.isascii() and text.isdecimal() else ()


def pattern_of(value: Any, *, prefix: str, suffix: str) -> str:
    """Return the regular expression of texts that state *value* behind *prefix*, anchored so that an index can serve.

    Where *suffix* is empty, what follows may be no part of a longer id.
    """
    return f"^{_literal(prefix + to_text(value))}{_literal(suffix) or _NO_PART_OF_AN_ID}"


def _literal(text: str) -> str:
    return _MEANS_SOMETHING.sub(r"\\\1", text)


def is_plain_name(name: str) -> bool:
    """Whether *name* can be a part of a dotted path: no dots, no operator, and no place in an array."""
    return "." not in name and not name.startswith("$") and not (name.isdigit() and len(name) <= _LONGEST_INDEX)


def values_at(document: Any, path: str) -> Iterator[Any]:
    """Yield whatever stands at *path* of *document*, through every array on the way."""
    yield from values_along(document, path.replace("[]", "").removesuffix("{}").split("."))


def unpack(value: Any, encodings: Sequence[Encoding]) -> Any:
    """Return what *value* holds under *encodings*, the outermost first; None where it is not packed so."""
    for encoding in encodings:
        raw = value.encode() if isinstance(value, str) else value
        if not isinstance(raw, bytes):
            return None
        try:
            value = _UNPACK[encoding](raw)
        except (ValueError, OSError, EOFError, zlib.error, RecursionError):
            return None
    return _readable(value)


def _readable(value: Any) -> Any:
    """Return bytes that are a text as that, so that they are read as one."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _from_base64(raw: bytes) -> bytes:
    joined = raw.translate(bytes.maketrans(b"-_", b"+/"), b"\r\n =")
    return base64.b64decode(joined + b"=" * (-len(joined) % 4), validate=True)


def _from_gzip(raw: bytes) -> bytes:
    """Return the content, as far as it is worth looking at: a small packet may claim any size."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = unpacker.decompress(raw, MOST_UNPACKED_BYTES)
    if not unpacker.eof:
        raise gzip.BadGzipFile
    return content


_UNPACK = {
    Encoding.BASE64: _from_base64,
    Encoding.HEX: binascii.unhexlify,
    Encoding.JSON: json.loads,
    Encoding.GZIP: _from_gzip,
    Encoding.URL: unquote_to_bytes,
}
