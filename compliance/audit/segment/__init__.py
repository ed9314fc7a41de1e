"""A segment: the log, or a range at its end, as a folder that any web server can hand out and anybody can verify.

Shape::

    checkpoint                    the signed note
    tile/<level>/<index>          hashes
    tile/entries/<index>          bundles of entries

There is no key in the folder: one that came with what it is to prove would prove nothing. Who verifies MUST have the
keys of the log from elsewhere. A range is named by its first entry, a multiple of 256, for the same reason: a folder
that said itself where it begins could leave out what it likes.

Source: C2SP tlog-tiles (APIs, Pruning).
"""

from compliance.audit.segment.finding import Fault, Finding
from compliance.audit.segment.read import Segment, open_segment, read_entry
from compliance.audit.segment.verify import SegmentReport, summed, verify_segment
from compliance.audit.segment.write import write_segment

__all__ = [
    "Fault",
    "Finding",
    "Segment",
    "SegmentReport",
    "open_segment",
    "read_entry",
    "summed",
    "verify_segment",
    "write_segment",
]
