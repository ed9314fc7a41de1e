"""Share the documents of a collection out among time buckets, with a view over all of them.

New documents go into the old collection as before; ``apply`` moves them, as often as it is run, each exactly once. The
view ``<collection>_all`` shows everything; old buckets are dropped whole. Meant for documents that are written once,
such as events: an update by ``_id`` in the old collection finds nothing once the document has moved.

Declared in ``declared_schema``::

    {_id: "partition:<collection>", collection: str, field: str, every: "day" | "month" | "year", revision: str}
"""

from migrations.ops.partition.apply import apply
from migrations.ops.partition.drop import drop
from migrations.ops.partition.merge import merge
from migrations.ops.partition.scheme import Scheme, find_scheme, make_scheme
from migrations.ops.partition.sharding import shard

__all__ = ["Scheme", "apply", "drop", "find_scheme", "make_scheme", "merge", "shard"]
