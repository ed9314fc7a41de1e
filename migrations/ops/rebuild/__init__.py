"""Rebuild a collection: what cannot be done in place is done in a copy, which takes the place of the collection.

Copy, follow the changes, look whether both are the same; then refuse writes, take the last changes over, and exchange
the two by one rename. Where that takes longer than it may, writes are let in again and the copy follows on.
"""

from migrations.ops.rebuild.freeze import is_frozen, recover
from migrations.ops.rebuild.rebuild import Wanted, drop_rebuilt, rebuild

__all__ = ["Wanted", "drop_rebuilt", "is_frozen", "rebuild", "recover"]
