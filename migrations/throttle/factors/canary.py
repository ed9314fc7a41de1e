"""How much slower small writes are than before the step began; measured by ``migrations.throttle.canary``.

Where nobody else works on the servers, nobody waits for them.
"""

from migrations.throttle.factor import FACTORS, Factor, Moment

MOST = 2.0


def judge(_: object, moment: Moment) -> str | None:
    """Wait while writes of others would take more than twice as long."""
    slower = None if moment.is_alone else moment.canary
    return f"small writes take {slower:.1f} times as long (at most {MOST:g})" if slower and slower > MOST else None


FACTORS.add("canary", Factor(read=lambda _: None, judge=judge))
