"""How much of the storage engine's cache waits to be written.

From 20 % on the threads of applications must write it themselves (``eviction_dirty_trigger`` of WiredTiger).
"""

from compliance.mongo import Databases
from migrations.throttle.factor import FACTORS, Factor, Moment

MOST = 0.15


def read(databases: Databases) -> float:
    """Return the dirty share of the cache."""
    cache = databases.client.admin.command("serverStatus").get("wiredTiger", {}).get("cache", {})
    size = cache.get("maximum bytes configured", 0)
    return cache.get("tracked dirty bytes in the cache", 0) / size if size else 0.0


def judge(share: float, _: Moment) -> str | None:
    """Wait before the server makes its clients write."""
    return f"{share:.0%} of the cache is dirty (at most {MOST:.0%})" if share > MOST else None


FACTORS.add("cache_pressure", Factor(read=read, judge=judge))
