"""How the texts of a transparency log write numbers and bytes.

One value has one text: whatever would decode to the same value as another text is refused, so that nobody can change a
byte of a note, checkpoint or receipt unnoticed.

Source: C2SP signed-note, tlog-checkpoint, tlog-proof; RFC 4648 sections 3.5 and 4.
"""

import base64
import binascii
import re

from compliance.audit.merkle import HASH_BYTES
from compliance.errors import MalformedProof

MAX_SIZE = 2**63 - 1  # what a signed 64-bit integer holds, in MongoDB and in the other implementations

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def encode_base64(data: bytes) -> str:
    """Return *data* in standard base64, padded."""
    return base64.b64encode(data).decode()


def decode_base64(text: str, *, what: str) -> bytes:
    """Return the bytes of *text*, which is named *what* in the error.

    Raises:
        MalformedProof: For anything but padded standard base64 without white space and without left-over bits.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise MalformedProof(f"{what} is not base64") from None
    if encode_base64(data) != text:
        raise MalformedProof(f"{what} is not base64 as it is written")
    return data


def decode_hash(text: str, *, what: str) -> bytes:
    """Return the hash that *text* holds in base64.

    Raises:
        MalformedProof: When it is not base64, or not of 32 bytes.
    """
    found = decode_base64(text, what=what)
    if len(found) != HASH_BYTES:
        raise MalformedProof(f"{what} has {len(found)} bytes instead of {HASH_BYTES}")
    return found


def decode_decimal(text: str, *, what: str) -> int:
    """Return the number that *text* holds in ASCII digits.

    Raises:
        MalformedProof: For a sign, a leading zero, another script's digits, or more than `MAX_SIZE`.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SIZE:
        raise MalformedProof(f"{what} is not a decimal number up to {MAX_SIZE}")
    return int(text)
