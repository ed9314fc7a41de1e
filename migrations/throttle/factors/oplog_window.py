"""How far back the oplog reaches: a secondary or a watcher that was away for longer has lost its place."""

from compliance.mongo import Databases
from migrations.throttle.factor import FACTORS, Factor, Moment


def read(databases: Databases) -> tuple[float, bool]:
    """Return the window in seconds, and whether any entry was dropped: an oplog that has room loses nothing."""
    status = databases.client.admin.command({"serverStatus": 1, "oplog": 1})
    oplog = status["oplog"]
    seconds = float(oplog["latestOptime"].time - oplog["earliestOptime"].time)
    return seconds, status["oplogTruncation"]["truncateCount"] > 0


def judge(reading: tuple[float, bool], moment: Moment) -> str | None:
    """Wait while old entries are dropped sooner than is safe."""
    seconds, is_full = reading
    least = moment.control.min_oplog_minutes
    if not is_full or seconds >= 60 * least:
        return None
    way = "`compliance migrate throttle --min-oplog` sets that"
    return f"the oplog reaches back {seconds / 60:.0f} min only (at least {least:g}: {way})"


FACTORS.add("oplog_window", Factor(read=read, judge=judge))
