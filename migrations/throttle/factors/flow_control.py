"""The primary slows every writer down, because the majority is far behind.

Source: MongoDB manual, "serverStatus: flowControl.isLagged".
"""

from compliance.mongo import Databases
from migrations.throttle.factor import FACTORS, Factor, Moment


def read(databases: Databases) -> bool:
    """Return whether it does."""
    return bool(databases.client.admin.command("serverStatus").get("flowControl", {}).get("isLagged", False))


def judge(is_lagged: bool, _: Moment) -> str | None:  # noqa: FBT001 - the reading of this factor
    """Wait while it does."""
    return "the server slows writers down (flow control)" if is_lagged else None


FACTORS.add("flow_control", Factor(read=read, judge=judge))
