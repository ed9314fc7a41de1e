"""What stands in bytes in another writing: base64, hexadecimal digits, percent-encoding; pure.

Found by where their characters stand, not by what they say, so that one look serves any number of people. Writings of
writings are followed from percent-encoding into the other two, and no further.
"""

import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

SHORTEST_BASE64, SHORTEST_HEX = 16, 24  # characters: 12 bytes
_IS, _IS_NOT = b"x", b" "
_BREAKS = b"\r\n"  # between the lines of a long text in base64; RFC 2045, section 6.8
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_" + _BREAKS
_HEX = b"0123456789abcdefABCDEF"
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_STANDARD = bytes.maketrans(b"-_", b"+/")  # RFC 4648, section 5
_QUANTUM = 4
_ZEROS = [b"A" * (2 * _QUANTUM - over) for over in range(_QUANTUM)]  # up to a whole group, and one that parts rows


def _table_of(characters: bytes) -> bytes:
    return bytes((_IS if bytes([each]) in characters else _IS_NOT)[0] for each in range(256))


_IS_BASE64, _IS_HEX = _table_of(_BASE64), _table_of(_HEX)
_IS_UUID = _IS_HEX[: ord("-")] + b"-" + _IS_HEX[ord("-") + 1 :]
_UUID = b"-".join(_IS * digits for digits in (8, 4, 4, 4, 12))


def layers(raw: bytes) -> Iterator[bytes]:
    """Yield *raw*, and what may be packed in it; the parts of what was packed stand apart by zero bytes."""
    yield raw
    if _PERCENT.search(raw):
        raw = unquote_to_bytes(raw)
        yield raw
    unpacked = b"\0".join((*_from_base64(raw), *_from_hex(raw)))
    if unpacked:
        yield unpacked


def hex_runs(raw: bytes) -> Iterator[bytes]:
    """Yield every row of hexadecimal digits in *raw* that could hold an id."""
    return _runs(raw, _IS_HEX, SHORTEST_HEX)


def uuid_texts(raw: bytes) -> Iterator[bytes]:
    """Yield every UUID that stands in *raw* as a text."""
    marked = raw.translate(_IS_UUID)
    start = marked.find(_UUID)
    while start >= 0:
        yield raw[start : start + len(_UUID)]
        start = marked.find(_UUID, start + 1)


def _from_base64(raw: bytes) -> Iterator[bytes]:
    """Yield what rows of characters of base64 say, wherever in them the first group of four begins.

    An identifier within what was encoded stands at one of three offsets, which the decoded bytes no longer show.
    """
    rows = {row.translate(_STANDARD, _BREAKS) for row in _runs(raw, _IS_BASE64, SHORTEST_BASE64)}
    for first in range(_QUANTUM if rows else 0):
        yield binascii.a2b_base64(b"".join([row[first:] + _ZEROS[(len(row) - first) % _QUANTUM] for row in rows]))


def _from_hex(raw: bytes) -> Iterator[bytes]:
    for row in set(hex_runs(raw)):
        yield from (bytes.fromhex(row[first : len(row) - (len(row) - first) % 2].decode()) for first in (0, 1))


def _runs(raw: bytes, table: bytes, shortest: int) -> Iterator[bytes]:
    """Yield every longest row of at least *shortest* bytes that *table* marks."""
    marked, least = raw.translate(table), _IS * shortest
    start = marked.find(least)
    while start >= 0:
        end = marked.find(_IS_NOT, start)
        end = len(marked) if end < 0 else end
        yield raw[start:end]
        start = marked.find(least, end)
