"""One entry by itself: whether a known writer signed just these bytes."""

from collections.abc import Mapping
from typing import Any

from compliance.audit.leaf import SIGNATURE, stored_bytes, unsigned
from compliance.audit.trust import Trust
from compliance.audit.wire import decode_base64
from compliance.errors import InvalidProof


def find_fault(document: Mapping[str, Any], trust: Trust) -> str | None:
    """Return the kind of what is wrong with an entry and why, None where its writer signed just these bytes."""
    writer = document.get("writer")
    verifier = trust.writer(writer.get("key")) if isinstance(writer, Mapping) else None
    if verifier is None:
        return "FORGED no known writer signed it"
    try:
        signed = stored_bytes(unsigned(document))
    except (TypeError, ValueError):
        return "MODIFIED it holds a value that no entry can hold"
    try:
        verifier.verify(signed, decode_base64(str(document.get(SIGNATURE)), what="a signature"))
    except InvalidProof:
        return "MODIFIED its bytes are not those that were signed"
    return None
