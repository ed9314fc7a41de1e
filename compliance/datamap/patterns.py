"""Personal data recognised by its form: what a value looks like, also where it is packed; pure.

Nothing of a value leaves this module but the names of the patterns that it shows. A number is only taken for an account
or a card where its check digits are right; a telephone number where it is written in the international form.

Source: RFC 5321 (addresses), ISO 13616 (IBAN, mod 97-10), ISO/IEC 7812-1 (Luhn), ITU-T E.164, RFC 7519 (JWT).
"""

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

MOST_BYTES = 65_536
MOST_DEPTH = 3
_SHORTEST = 6


class Pattern(StrEnum):
    """What a value looks like."""

    EMAIL = "email"
    PHONE = "phone"
    IBAN = "iban"
    CARD = "card"
    IP = "ip"
    JWT = "jwt"


_EMAIL = re.compile(r"[^\s@<>\"'(),:;\[\]\\/=&?]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}")
_PHONE = re.compile(r"(?<![\w+])(?:\+|(?<!\d[ -])00)[1-9](?:[ ./()-]{0,2}\d){7,14}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w.])")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)")
_JWT = re.compile(r"\beyJ[\w-]{5,}\.(eyJ[\w-]{5,})\.[\w-]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}){8,}")
_PHONE_DIGITS = range(8, 16)
_CARD_DIGITS = range(13, 20)
_MOD_97, _ALPHABET = 97, 36


def patterns_in(value: Any) -> frozenset[Pattern]:
    """Return the patterns that *value* shows; of long values the first 64 KiB are read."""
    return frozenset(_found(value, 0))


def _found(value: Any, depth: int) -> Iterator[Pattern]:
    if isinstance(value, str):
        yield from _in_text(value[:MOST_BYTES], depth)
    elif isinstance(value, bytes | bytearray):
        yield from _in_bytes(bytes(value[:MOST_BYTES]), depth)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from _in_text(str(value) if abs(value) < 10 ** max(_CARD_DIGITS) else "", MOST_DEPTH)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _found(str(name), depth)
            yield from _found(inner, depth)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner, depth)


def _in_text(text: str, depth: int) -> Iterator[Pattern]:
    if len(text) < _SHORTEST:
        if text == "::1":
            yield Pattern.IP
        return
    yield from _plain(text)
    if depth < MOST_DEPTH:
        yield from _unpacked(text, depth + 1)


def _plain(text: str) -> Iterator[Pattern]:
    if "@" in text and _EMAIL.search(text):
        yield Pattern.EMAIL
    if any(len(_digits(one[0]).removeprefix("00")) in _PHONE_DIGITS for one in _PHONE.finditer(text)):
        yield Pattern.PHONE
    if any(is_iban(one[0]) for one in _IBAN.finditer(text)):
        yield Pattern.IBAN
    if any(is_card(one[0]) for one in _CARD.finditer(text)):
        yield Pattern.CARD
    if any(_is_ip(one[0]) for one in _IP.finditer(text)):
        yield Pattern.IP


def _unpacked(text: str, depth: int) -> Iterator[Pattern]:
    """Look into what *text* may pack: a JSON document, a token, a URL, base64, hexadecimal digits."""
    for token in _JWT.finditer(text):
        claims = _to_json(_from_base64(token[1]))
        if isinstance(claims, Mapping):
            yield Pattern.JWT
            yield from _found(claims, depth)
    if "%" in text and (plain := unquote(text)) != text:
        yield from _in_text(plain, depth)
    stripped = text.strip()
    if stripped[0:1] in ("{", "["):
        yield from _found(_to_json(stripped.encode()), depth)
    elif _HEX.fullmatch(stripped):
        yield from _in_bytes(bytes.fromhex(stripped), depth)
    elif _BASE64.fullmatch(stripped):
        yield from _in_bytes(_from_base64(stripped), depth)


def _in_bytes(raw: bytes, depth: int) -> Iterator[Pattern]:
    if raw.startswith(b"\x1f\x8b"):
        raw = _from_gzip(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    if text.isprintable() or "\n" in text or "\t" in text:
        yield from _in_text(text, depth)


def _from_gzip(raw: bytes) -> bytes:
    """Unpack no more than is read, however much there is."""
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, MOST_BYTES)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.rstrip("=").translate(_URL_SAFE) + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return b""


_URL_SAFE = str.maketrans("-_", "+/")


def _to_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def is_iban(text: str) -> bool:
    """Whether the check digits of an account number are right."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:  # noqa: PLR2004 - the lengths of ISO 13616
        return False
    return int("".join(str(int(char, _ALPHABET)) for char in compact[4:] + compact[:4])) % _MOD_97 == 1


def is_card(text: str) -> bool:
    """Whether the check digit of a card number is right."""
    digits = _digits(text)
    if len(digits) not in _CARD_DIGITS:
        return False
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0  # noqa: PLR2004 - by Luhn


def _is_ip(text: str) -> bool:
    try:
        return bool(ip_address(text)) and not text.startswith("0.") and text != "::"
    except ValueError:
        return False
