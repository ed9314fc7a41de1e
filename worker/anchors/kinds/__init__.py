"""The kinds of anchors, one file each; a further one is a further file."""

from compliance.registry import import_submodules
from worker.anchors.anchor import KINDS

import_submodules(__name__, __path__)

__all__ = ["KINDS"]
