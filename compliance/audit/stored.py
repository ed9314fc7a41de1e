"""An entry as the server holds it: BSON, of which a decoded document does not show all.

BSON may name a field twice. The server finds such a document by the first value and the driver shows the last one, so
both would be believed: what is read from the audit log is taken as an entry only if it holds nothing beside what was
decoded.
"""

from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument

from compliance.mongo import Document

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
