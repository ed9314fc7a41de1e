"""Only at certain times of day."""

from migrations.throttle.factor import FACTORS, Factor, Moment


def judge(_: object, moment: Moment) -> str | None:
    """Wait outside of the window."""
    control = moment.control
    return None if control.is_within_window(moment.now) else f"outside of the window {control.window} UTC"


FACTORS.add("window", Factor(read=lambda _: None, judge=judge))
