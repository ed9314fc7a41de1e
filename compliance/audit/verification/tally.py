"""Compare two multitudes of ids without keeping them: which ids are sealed, and which the collection holds.

Ids fall into 4,096 groups by their first digits. Of each group count and sum are kept, and the product of its ids, each
moved by a random number, modulo a prime. Nobody who does not know that number can prepare two multitudes with equal
products. Where one id is the whole difference, the sums say which; other groups are looked at in full afterwards.

Source: Clarke et al., Incremental Multiset Hash Functions (2003), section 5; Schwartz 1980, Zippel 1979: two products
of n factors are equal by chance in at most n of 2**128 cases.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

DIGITS = 3
GROUPS = 1 << (4 * DIGITS)
ID_BITS = 128
PRIME = 2**ID_BITS + 51

_SHIFT = ID_BITS - 4 * DIGITS
_ONE = 1 << (2 * ID_BITS)  # what a sum counts an id by, far above the sum itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """In what two tallies differ.

    Attributes:
        more: Ids that only the other one has.
        less: Ids that it lacks.
        groups: Numbers of the groups in which more than one id differs.
    """

    more: frozenset[str]
    less: frozenset[str]
    groups: tuple[int, ...]


@dataclass(slots=True)
class Tally:
    """Counts, sums and products of ids; it takes as much memory for a million ids as for one.

    Attributes:
        key: By what each id is moved; equal for tallies that are compared.
    """

    key: int = field(default_factory=lambda: secrets.randbelow(PRIME))
    sums: list[int] = field(default_factory=lambda: [0] * GROUPS)
    products: list[int] = field(default_factory=lambda: [1] * GROUPS)

    def add(self, ids: Iterable[str | bytes]) -> None:
        """Add *ids* of 32 hex digits each."""
        key, one, sums, products = self.key, _ONE, self.sums, self.products
        for id_ in ids:
            number = int(id_, 16)
            group = number >> _SHIFT
            sums[group] += one + number
            products[group] = products[group] * (number + key) % PRIME

    def count(self, group: int) -> int:
        """Return how many ids a group has."""
        return self.sums[group] // _ONE

    def difference(self, other: "Tally") -> Difference:
        """Return in what *other* differs from this one."""
        more, less, groups = set(), set(), []
        for group in range(GROUPS):
            if self.products[group] == other.products[group]:
                continue
            found = other.sums[group] - self.sums[group]
            if _exceeds(self, other, group, by=found - _ONE):
                more.add(_id(found - _ONE))
            elif _exceeds(other, self, group, by=-found - _ONE):
                less.add(_id(-found - _ONE))
            else:
                groups.append(group)
        return Difference(more=frozenset(more), less=frozenset(less), groups=tuple(groups))


def prefix(group: int) -> str:
    """Return the first digits of the ids of a group."""
    return f"{group:0{DIGITS}x}"


def after(group: int) -> str:
    """Return what is greater than every id of a group, and no greater than those of the next."""
    return prefix(group + 1) if group + 1 < GROUPS else "g"


def packed(groups: Iterable[int], counts: Iterable[int], *, most: int) -> Iterator[list[int]]:
    """Yield *groups* in as few parts as hold *most* ids each, by how many each group has."""
    part: list[int] = []
    size = 0
    for group, count in zip(groups, counts, strict=True):
        if part and size + count > most:
            yield part
            part, size = [], 0
        part.append(group)
        size += count
    if part:
        yield part


def _exceeds(one: Tally, other: Tally, group: int, *, by: int) -> bool:
    """Whether *other* has just the id *by* more in a group."""
    return by >> _SHIFT == group and one.products[group] * (by + one.key) % PRIME == other.products[group]


def _id(number: int) -> str:
    return f"{number:0{ID_BITS // 4}x}"
