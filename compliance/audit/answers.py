"""Answers of the server as bytes, many documents at a time.

The raw batches of the driver cost more than half of what decoding does, for it makes an object of each document first.
So a cursor is followed here with commands of its own.

Source: MongoDB, ``find`` and ``getMore`` commands; BSON specification 1.1.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect

from compliance.audit.stored import RAW
from compliance.mongo import Databases, driver_errors
from compliance.roles import AUDIT_LOG

MAJORITY = {"level": "majority"}

_ARRAY, _INT64 = 0x04, 0x12
_FIXED = {0x01: 8, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, _INT64: 8}  # bytes of values, by their type
_SIZED = {0x03: 0, _ARRAY: 0, 0x02: 4, 0x05: 5}  # bytes that their size does not count


def find_entries(
    databases: Databases, query: Mapping[str, Any], *, at_once: int, **options: Any
) -> Iterator[list[bytes]]:
    """Yield the entries that *query* finds, as they are stored, so many at a time.

    Args:
        databases: Reached with rights to read the audit database.
        query: The filter of a ``find``.
        at_once: How many documents an answer may hold; fewer come where they are large.
        options: Others of ``find``, such as ``projection`` and ``hint``.

    Raises:
        StoreUnavailable: When the server does not answer, also at a second try for the first answer.
    """
    find = {"find": AUDIT_LOG, "filter": query, "batchSize": at_once, "readConcern": MAJORITY, **options}
    with driver_errors(), databases.client.start_session() as session:
        try:
            cursor_id, documents = _ask(databases, find, session)
        except AutoReconnect:  # as the driver does for a find of its own
            cursor_id, documents = _ask(databases, find, session)
        while True:
            if documents:
                yield documents
            if not cursor_id:
                return
            more = {"getMore": cursor_id, "collection": AUDIT_LOG, "batchSize": at_once}
            cursor_id, documents = _ask(databases, more, session)


def _ask(databases: Databases, command: dict[str, Any], session: ClientSession) -> tuple[int, list[bytes]]:
    """Return the id of the cursor, zero behind its end, and the documents of an answer."""
    answer = databases.audit.command(command, codec_options=RAW, session=session)
    cursor: RawBSONDocument = answer["cursor"]
    return _read_cursor(bytes(cursor.raw))


def _read_cursor(data: bytes) -> tuple[int, list[bytes]]:
    cursor_id, documents = 0, list[bytes]()
    for kind, name, begin, end in _elements(data):
        if name in (b"firstBatch", b"nextBatch") and kind == _ARRAY:
            documents = list(_documents(data, begin, end))
        elif name == b"id" and kind == _INT64:
            cursor_id = int.from_bytes(data[begin:end], "little", signed=True)
    return cursor_id, documents


def _elements(data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield type and name of each field of a document, and where its value begins and ends."""
    at = 4
    while data[at]:
        kind, stop = data[at], data.index(b"\0", at + 1)
        begin = stop + 1
        size = _FIXED[kind] if kind in _FIXED else _SIZED[kind] + _size(data, begin)
        yield kind, data[at + 1 : stop], begin, begin + size
        at = begin + size


def _documents(data: bytes, begin: int, end: int) -> Iterator[bytes]:
    """Yield the documents of the array that is there; the name of each is its number."""
    at, number, power, digits = begin + 4, 0, 10, 1
    while at < end - 1:
        if number == power:
            power, digits = power * 10, digits + 1
        first = at + digits + 2  # type, name and the zero behind it
        at = first + _size(data, first)
        yield data[first:at]
        number += 1


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
