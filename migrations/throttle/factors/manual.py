"""A person said stop."""

from migrations.throttle.factor import FACTORS, Factor, Moment


def judge(_: object, moment: Moment) -> str | None:
    """Wait while the flag is set."""
    return "paused by a person (`compliance migrate throttle --resume`)" if moment.control.paused else None


FACTORS.add("manual", Factor(read=lambda _: None, judge=judge))
