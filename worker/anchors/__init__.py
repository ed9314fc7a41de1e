"""Anchors: places outside the database that keep what the log signed.

Whoever can write to the database can cut off the end of the log together with its checkpoints, and restore an older
state; nothing in the database shows it then. A checkpoint that is kept elsewhere does. An anchor that holds one which
the log of today does not continue says so, and that is never passed over.
"""

from worker.anchors.anchor import Anchor, Head, Place, SealedLogs
from worker.anchors.config import load_anchors
from worker.anchors.kinds import KINDS
from worker.anchors.loop import AnchorLoop

__all__ = ["KINDS", "Anchor", "AnchorLoop", "Head", "Place", "SealedLogs", "load_anchors"]
