"""One document per line in canonical MongoDB Extended JSON v2: keeps every BSON type that JSON can express."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from bson import json_util

from compliance.errors import InvalidPayload
from compliance.mongo import CODEC, Document

SUFFIX = ".ndjson"


class Writable(Protocol):
    """What documents are written to."""

    def write(self, data: bytes, /) -> int:
        """Write *data*."""
        ...


_OPTIONS = json_util.CANONICAL_JSON_OPTIONS
_READ_OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, tz_aware=CODEC.tz_aware, tzinfo=CODEC.tzinfo, document_class=dict
)


def write(documents: Iterable[Document], file: Writable) -> int:
    """Write *documents* to *file* and return how many there were; one is in memory at a time."""
    count = 0
    for document in documents:
        file.write(json_util.dumps(document, json_options=_OPTIONS, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def read(lines: Iterable[bytes], *, first_line: int = 1) -> Iterator[Document]:
    """Yield the document of each of *lines*.

    Raises:
        InvalidPayload: Naming the line that is no document; its content is not repeated.
    """
    for number, line in enumerate(lines, first_line):
        try:
            document = json_util.loads(line.decode(), json_options=_READ_OPTIONS)
        except Exception as error:  # noqa: BLE001 - json_util lets many types escape for wrong wrappers
            raise InvalidPayload(f"line {number} is not a document in Extended JSON ({type(error).__name__})") from None
        if not isinstance(document, dict) or "_id" not in document:
            raise InvalidPayload(f"line {number} is not a document with an _id")
        yield document
