"""An entry as the server holds it: BSON, of which a decoded document does not show all.

BSON may name a field twice. The server finds such a document by the first value and the driver shows the last one, so
both would be believed: what is read from the audit log is taken as an entry only if it holds nothing beside what was
decoded.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.audit.signed import find_fault
from compliance.audit.trust import Trust
from compliance.mongo import Databases, Document
from compliance.roles import AUDIT_LOG

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
"""For whoever reads entries: they come as bytes, also those that cannot be decoded."""

# Times that no calendar holds stay numbers, and text that is not UTF-8 is replaced: such an entry is found out, and
# must not keep others from being read.
_LENIENT: CodecOptions[Document] = CodecOptions(
    document_class=dict[str, Any],
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_NUMBERS = _LENIENT.with_options(datetime_conversion=DatetimeConversion.DATETIME_MS)
_ID = re.compile(rb".{4}\x02_id\x00\x21\x00\x00\x00([0-9a-f]{32})\x00", re.DOTALL)  # the server puts it first


def stored_entries(databases: Databases) -> Collection[RawBSONDocument]:
    """Return the collection of the entries, for reading them as they are stored."""
    return databases.audit.with_options(codec_options=RAW)[AUDIT_LOG]


def read_stored(raw: RawBSONDocument | bytes, *, times_as_numbers: bool = False) -> Document:
    """Return the document that *raw* holds.

    Args:
        raw: The bytes of one document.
        times_as_numbers: Whether times come as ``DatetimeMS``, in a fraction of the time.

    Raises:
        ValueError: When it holds more than can be decoded, such as a field that is there twice.
    """
    data = raw.raw if isinstance(raw, RawBSONDocument) else raw
    try:
        document = bson.decode(data, _NUMBERS if times_as_numbers else _LENIENT)
        is_whole = bson.encode(document) == data
    except (InvalidBSON, ValueError, OverflowError) as error:
        raise ValueError("the document cannot be decoded") from error
    if not is_whole:
        raise ValueError("the document holds more than can be decoded, such as a field twice")
    return document


def read_each(data: bytes) -> Iterator[tuple[str | None, Document | None]]:
    """Yield `stored_id` and `read_stored` of every document in *data*, one behind the other, with times as numbers.

    In place of a document that holds more than can be decoded comes None. Much faster than one by one.
    """
    try:
        documents = bson.decode_all(data, _NUMBERS)
        is_whole = b"".join(map(bson.encode, documents)) == data
    except (InvalidBSON, ValueError, OverflowError):
        is_whole = False
    if is_whole:
        yield from ((document.get("_id"), document) for document in documents)
        return
    for raw in split(data):
        try:
            yield stored_id(raw), read_stored(raw, times_as_numbers=True)
        except ValueError:
            yield stored_id(raw), None


def split(data: bytes) -> Iterator[bytes]:
    """Yield the documents in *data*, which are one behind the other."""
    begin = 0
    while begin < len(data):
        (size,) = struct.unpack_from("<i", data, begin)
        yield data[begin : begin + size]
        begin += size


def stored_id(raw: RawBSONDocument | bytes) -> str | None:
    """Return the id by which the server finds the entry *raw*; None where it is not that of an entry."""
    found = _ID.match(raw.raw if isinstance(raw, RawBSONDocument) else raw)
    return found[1].decode() if found else None


def find_stored_fault(raw: RawBSONDocument | bytes, trust: Trust) -> str | None:
    """Return the kind of what is wrong with a document and why, None where it is an entry as its writer signed it."""
    try:
        document = read_stored(raw)
    except ValueError:
        return "MODIFIED it holds more than can be read, such as a field twice"
    return find_fault(document, trust)
