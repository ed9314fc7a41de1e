"""Documents as no driver writes them: with a field that is there twice."""

import struct
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from compliance.mongo import Document


def joined(*elements: tuple[str, object]) -> bytes:
    """Return a document of *elements*, also where two have the same name."""
    body = b"".join(bson.encode({name: value})[4:-1] for name, value in elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def doubled(document: Document, name: str, value: Any) -> RawBSONDocument:
    """Return *document* with another value of the field *name* before its own: the server finds it by that one."""
    elements = [
        element for key, own in document.items() for element in ([(key, value)] if key == name else []) + [(key, own)]
    ]
    return RawBSONDocument(joined(*elements))
