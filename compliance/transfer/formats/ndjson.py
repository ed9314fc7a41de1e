"""One document per line in canonical MongoDB Extended JSON v2, so that an import restores every byte.

Extended JSON is ambiguous for names that begin with ``$`` and knows no duplicate names, no text that is not UTF-8 and
no deprecated types. A document with such is one line ``{"$bson": "<base64 of its BSON>"}``.
"""

import base64
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.errors import InvalidPayload
from compliance.mongo import CODEC, Db, Document

SUFFIX = ".ndjson"
EXACT = "$bson"
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
WIDE = CODEC.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)  # years that Python does not know


class Writable(Protocol):
    """What documents are written to."""

    def write(self, data: bytes, /) -> int:
        """Write *data*."""
        ...


_OPTIONS = json_util.CANONICAL_JSON_OPTIONS
_READ_OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    tz_aware=CODEC.tz_aware,
    tzinfo=CODEC.tzinfo,
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_NAN = struct.pack("<d", math.nan)  # there are many; Extended JSON writes this one
_ANY_TEXT = WIDE.with_options(unicode_decode_error_handler="replace")


def as_stored(database: Db, name: str) -> Collection[Any]:
    """Return the collection *name* whose documents are read as the bytes that are stored."""
    collection: Collection[Any] = database.get_collection(name, codec_options=RAW)
    return collection


def decode_exactly(stored: RawBSONDocument) -> Mapping[str, Any]:
    """Return the decoded document; it stays as it is stored where decoding would lose something."""
    try:
        document = bson.decode(stored.raw, WIDE)
        return document if bson.encode(document) == stored.raw else stored
    except bson.errors.BSONError:
        return stored


def write(documents: Iterable[Mapping[str, Any]], file: Writable) -> int:
    """Write *documents* to *file* and return how many there were; one is in memory at a time."""
    count = 0
    for document in documents:
        file.write(_to_line(document))
        count += 1
    return count


def read(lines: Iterable[bytes], *, first_line: int = 1) -> Iterator[Document]:
    """Yield the document of each of *lines*; every one can be stored.

    Raises:
        InvalidPayload: Naming the line that is no document; its content is not repeated.
    """
    for number, line in enumerate(lines, first_line):
        try:
            document = _from_line(line)
        except Exception as error:  # noqa: BLE001 - json_util lets many types escape for wrong wrappers
            raise InvalidPayload(f"line {number} is not a document in Extended JSON ({type(error).__name__})") from None
        if document is None or "_id" not in document:
            raise InvalidPayload(f"line {number} is not a document with an _id")
        yield document


def _to_line(document: Mapping[str, Any]) -> bytes:
    if isinstance(document, RawBSONDocument) or _is_ambiguous(document):
        return json.dumps({EXACT: base64.b64encode(bson.encode(document)).decode()}).encode() + b"\n"
    return json_util.dumps(document, json_options=_OPTIONS, ensure_ascii=False).encode() + b"\n"


def _from_line(line: bytes) -> Document | None:
    document: Any = json_util.loads(line.decode(), json_options=_READ_OPTIONS)
    if not isinstance(document, dict):
        return None
    if document.keys() != {EXACT}:
        bson.encode(document)
        return document
    raw = base64.b64decode(document[EXACT], validate=True)
    bson.decode(raw, _ANY_TEXT)
    exact: Any = RawBSONDocument(raw, RAW)
    return exact  # type: ignore[no-any-return] # a mapping like any other document


def _is_ambiguous(value: object) -> bool:
    if isinstance(value, dict):
        return any(name.startswith("$") or _is_ambiguous(inner) for name, inner in value.items())
    if isinstance(value, list):
        return any(_is_ambiguous(inner) for inner in value)
    return isinstance(value, float) and math.isnan(value) and struct.pack("<d", value) != _NAN
