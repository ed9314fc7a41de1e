"""Placed faults: a process that dies at its n-th transaction, before or after the commit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from compliance.mongo import Databases, Session

T = TypeVar("T")


class Died(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@dataclass
class Fate:
    """Dies at transaction number *at*; *committed* says whether that one still commits.

    Where it does not commit for another reason, the next one that does is meant.
    """

    at: int
    committed: bool
    calls: int = field(default=0, init=False)
    is_over: bool = field(default=False, init=False)


class MortalDatabases(Databases):
    """Databases of a process that dies."""

    def __init__(self, databases: Databases, fate: Fate) -> None:
        super().__init__(databases.client, databases.name, databases.participant)
        object.__setattr__(self, "fate", fate)

    fate: Fate

    def transact(self, work: Callable[[Session], T]) -> T:
        self.fate.calls += 1
        dies_here = 0 < self.fate.at <= self.fate.calls and not self.fate.is_over
        result = super().transact(work) if self.fate.committed or not dies_here else None
        if dies_here:
            self.fate.is_over = True
            raise Died
        return cast("T", result)


def mortal(databases: Databases, *, at: int, committed: bool) -> MortalDatabases:
    return MortalDatabases(databases, Fate(at, committed))
