"""A primary that steps down at a chosen transaction of a process."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from deployment import Deployment
from pymongo.errors import AutoReconnect

from compliance.mongo import Databases, Session

BEFORE, WITHIN = "before", "within"
T = TypeVar("T")


@dataclass
class Disturbance:
    """Makes the primary step down once."""

    deployment: Deployment
    is_over: bool = field(default=False, init=False)

    def step_down(self) -> None:
        """Return while there is no primary yet, for whoever goes on to find none."""
        self.is_over = True
        with suppress(AutoReconnect):
            self.deployment.admin.client.admin.command("replSetStepDown", 2, secondaryCatchUpPeriodSecs=1, force=True)


class DisturbedDatabases(Databases):
    """Databases whose n-th transaction meets a disturbance: before it begins, or between its effect and its commit.

    Where that one has no effect, for it raises, the next one that has is meant.
    """

    def __init__(self, databases: Databases, disturbance: Disturbance, *, at: int, moment: str) -> None:
        super().__init__(databases.client, databases.name, databases.participant)
        for name, value in (("disturbance", disturbance), ("calls", Counter()), ("at", at), ("moment", moment)):
            object.__setattr__(self, name, value)

    disturbance: Disturbance
    calls: Counter[str]
    at: int
    moment: str

    def transact(self, work: Callable[[Session], T]) -> T:
        self.calls["all"] += 1
        is_here = self.calls["all"] >= self.at
        if is_here and self.moment == BEFORE and not self.disturbance.is_over:
            self.disturbance.step_down()

        def disturbed(session: Session) -> T:
            found = work(session)
            if is_here and self.moment == WITHIN and not self.disturbance.is_over:
                self.disturbance.step_down()
            return found

        return super().transact(disturbed)
