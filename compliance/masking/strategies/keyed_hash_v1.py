"""``keyed_hash_v1``: equal values become equal texts, as ``erased-<32 hexadecimal digits>``, and nobody can try values.

The digits are of HMAC-SHA256 over the value as BSON. The key is made for one attempt at one erasure, is stored nowhere
and ends with it; without it this is no pseudonym (GDPR Art. 4(5)) but a random name. After a restart there is another
key, so equal values masked by two attempts differ.

Source: RFC 2104; EDPB Guidelines 01/2025, on pseudonymisation.
"""

import hmac
import re
from typing import Any

import bson

from compliance.masking.strategy import STRATEGIES

_MASKED = re.compile(r"erased-[0-9a-f]{32}")


def keyed_hash(value: Any, key: bytes) -> str:
    """Return the name of *value* under *key*; one that is such a name stays as it is."""
    if isinstance(value, str) and _MASKED.fullmatch(value):
        return value
    return f"erased-{hmac.digest(key, bson.encode({'': value}), 'sha256').hex()[:32]}"


STRATEGIES.add("keyed_hash_v1", keyed_hash)
