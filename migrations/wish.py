"""Which of the pending scripts are to run; pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which of the pending revisions are to run.

    Attributes:
        target: Up to and with this one, as ``Revision.matches`` reads it.
        only: This one alone.
        allow_late: Full names of revisions that may run although one that depends on them is applied.
        emergency: Why what staging has not vouched for runs all the same.
    """

    target: str | None = None
    only: str | None = None
    allow_late: tuple[str, ...] = ()
    emergency: str | None = None


ALL = Wish()
