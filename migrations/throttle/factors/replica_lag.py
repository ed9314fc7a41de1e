"""How far the slowest secondary is behind the primary."""

from compliance.errors import StoreUnavailable
from compliance.mongo import Databases
from migrations.throttle.factor import FACTORS, Factor, Moment

PRIMARY, SECONDARY = 1, 2


def read(databases: Databases) -> float:
    """Return the lag in seconds; 0 without secondaries.

    Raises:
        StoreUnavailable: While no member is primary.
    """
    members = databases.client.admin.command("replSetGetStatus")["members"]
    primary = max((member["optimeDate"] for member in members if member["state"] == PRIMARY), default=None)
    if primary is None:
        raise StoreUnavailable("no member of the replica set is primary")
    behind = [primary - member["optimeDate"] for member in members if member["state"] == SECONDARY]
    return max((lag.total_seconds() for lag in behind), default=0.0)


def judge(lag: float, moment: Moment) -> str | None:
    """Wait while it is further behind than allowed."""
    most = moment.control.max_lag_seconds
    return f"a secondary is {lag:.1f} s behind (at most {most:g})" if lag > most else None


FACTORS.add("replica_lag", Factor(read=read, judge=judge))
