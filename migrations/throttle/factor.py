"""One thing that can make a migration wait; each is a file in ``migrations/throttle/factors``."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.mongo import Databases
from compliance.registry import Registry
from migrations.throttle.control import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a factor judges by, beside its own reading.

    Attributes:
        now: In UTC.
        canary: How many times slower small writes are than before the step began; None while that is not known.
        is_alone: Whether nobody else works on the servers, or the step is too short to matter to them.
    """

    control: Control
    now: datetime
    canary: float | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How to look at one thing, and what it says.

    Attributes:
        read: Looks at the servers; may raise where it may not look, or where there is nothing of the kind.
        judge: Why to wait, for people; None to go on. Pure.
    """

    read: Callable[[Databases], Any]
    judge: Callable[[Any, Moment], str | None]


FACTORS: Registry[Factor] = Registry("throttle factor")
