"""Placed faults: a process that dies at its n-th transaction, before or after the commit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from compliance.mongo import Databases, Session

T = TypeVar("T")


class Died(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@dataclass
class Fate:
    """Dies at transaction number *at*; *committed* says whether that one still commits."""

    at: int
    committed: bool
    calls: int = field(default=0, init=False)


class MortalDatabases(Databases):
    """Databases of a process that dies."""

    def __init__(self, databases: Databases, fate: Fate) -> None:
        super().__init__(databases.client, databases.name, databases.participant)
        object.__setattr__(self, "fate", fate)

    fate: Fate

    def transact(self, work: Callable[[Session], T]) -> T:
        self.fate.calls += 1
        dies_here = self.fate.calls == self.fate.at
        if dies_here and not self.fate.committed:
            raise Died
        result = super().transact(work)
        if dies_here:
            raise Died
        return result


def mortal(databases: Databases, *, at: int, committed: bool) -> MortalDatabases:
    return MortalDatabases(databases, Fate(at, committed))
