"""Go on or wait: any factor that says wait wins; pure.

Source: the throttle of gh-ost, of which no factor overrides another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from migrations.throttle.factor import Factor, Moment
from migrations.throttle.size import next_size

LEAST_BESIDE = (
    64  # documents beside others: a batch of fewer is little else than its commit, which being gentler does not shorten
)
RESTS = 3  # beside others a step rests after a batch for so many times as long as that took
LONGEST_REST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Wait, for every one of these reasons."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Look at so many documents in the next batch, after a rest."""

    batch: int
    rest: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The batch before: how many documents it looked at, how long it took, and how many one may look at.

    Attributes:
        took: None before the first batch.
    """

    size: int
    took: timedelta | None
    most: int


def decide(readings: Mapping[str, Any], factors: Mapping[str, Factor], moment: Moment, pace: Pace) -> Pause | Go:
    """Return what to do next.

    Args:
        readings: By the name of the factor; one that could not be read is absent, and says nothing.
        factors: Every factor that counts.
        moment: What they judge by.
        pace: The batch before.
    """
    said = (factor.judge(readings[name], moment) for name, factor in factors.items() if name in readings)
    reasons = tuple(reason for reason in said if reason is not None)
    if reasons:
        return Pause(reasons=reasons)
    if pace.took is None:
        return Go(batch=min(pace.size, pace.most))
    longest = timedelta(seconds=moment.control.batch_seconds)
    batch = next_size(pace.size, took=pace.took, target=longest, most=pace.most)
    if moment.is_alone:
        return Go(batch=batch)
    gentle = next_size(
        pace.size, took=pace.took, target=timedelta(seconds=moment.control.beside_seconds), most=pace.most
    )
    return Go(batch=min(batch, max(gentle, LEAST_BESIDE)), rest=min(RESTS * pace.took, LONGEST_REST))
