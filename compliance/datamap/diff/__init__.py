"""Compare two data maps by what becomes of people's data; pure.

It does not compare texts: a rule that is written in another way and does the same is no change.
"""

from collections.abc import Iterator

from compliance.datamap.diff.around import changes_around
from compliance.datamap.diff.change import Change, Effect
from compliance.datamap.diff.rules import changes_of_rules
from compliance.datamap.model import DataMap

__all__ = ["Change", "Effect", "compare"]


def compare(old: DataMap, new: DataMap) -> Iterator[Change]:
    """Yield what the step from *old* to *new* means for people, collections first.

    Where two things cannot be compared (two filters, for instance) the change counts as ``LESS``: it may be.
    """
    yield from changes_of_rules(old, new)
    yield from changes_around(old, new)
