"""Rebuild a collection: what cannot be done in place is done in a copy, which takes the place of the collection.

Copy, follow the changes, look whether both are the same; then refuse writes, take the last changes over, and exchange
the two by one rename. Where that takes longer than it may, writes are let in again and the copy follows on.
"""

from migrations.ops.rebuild.freeze import put_back
from migrations.ops.rebuild.rebuild import Wanted, drop_rebuilt, rebuild
from migrations.ops.rebuild.recover import accept_exchange, recover

__all__ = ["Wanted", "accept_exchange", "drop_rebuilt", "put_back", "rebuild", "recover"]
