"""Commands that take a lock, each with a budget: nobody queues for long behind an open transaction because of us.

A command that changes a schema waits for every transaction that touched the collection, and what comes after it waits
behind it. So the server is told to give up after a moment, and asked again, at random intervals.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pymongo.errors import ExecutionTimeout, OperationFailure

from compliance.errors import GateClosed
from compliance.mongo import driver_errors
from migrations.command import Command, alteration, send

if TYPE_CHECKING:
    from migrations.hands import Hands

BUSY = frozenset(
    {
        24,  # LockTimeout
        46,  # LockBusy
        50,  # MaxTimeMSExpired
        117,  # ConflictingOperationInProgress
        12587,  # BackgroundOperationInProgressForNamespace: an index of the collection is being built
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to ask for a lock.

    Attributes:
        budget: How long one command may wait; as long waits who comes behind it.
        pause: The longest time between two commands.
        attempts: After so many, the migration ends, to be run again later.
    """

    budget: timedelta = timedelta(milliseconds=500)
    pause: timedelta = timedelta(seconds=2)
    attempts: int = 100


def alter(
    ctx: "Hands",
    command: str,
    collection: str,
    *,
    allowed: Collection[int] = (),
    **arguments: Any,
) -> bool:
    """Run ``{command: collection, **arguments}`` at majority as soon as it gets its lock; False for an *allowed* error.

    A dry run records it.

    The command must be harmless when it is repeated: an answer can be lost.

    Args:
        ctx: Whose lease counts: it is looked at before each attempt.
        command: Such as ``collMod``.
        collection: What it is about.
        allowed: Codes of errors that say that there is nothing to do.
        **arguments: The rest of the command.

    Raises:
        GateClosed: When the collection stays in use; nothing was changed.
        StepRefused: When the server refuses the command.
    """
    patience = ctx.patience
    limit = round(patience.budget.total_seconds() * 1000)
    wanted = alteration(command, collection, **arguments, maxTimeMS=limit)
    if ctx.is_dry_run:
        _sketch(ctx, wanted)
        return True
    for _ in range(patience.attempts):
        ctx.check()
        try:
            send(ctx, wanted)
        except OperationFailure as error:
            if error.code in allowed:
                return False
            if error.code not in BUSY and not isinstance(error, ExecutionTimeout):
                with driver_errors():
                    raise
        else:
            return True
        ctx.sleep(patience.pause * random.random())  # noqa: S311 - spreads load, guards nothing
    raise GateClosed(
        f"{collection} is in use: {command} did not get its lock within {patience.budget.total_seconds():g} s, "
        f"{patience.attempts} times; nothing was changed by it; let long transactions end, then migrate again"
    )


def wait_for_lock(ctx: "Hands", collection: str) -> None:
    """Return once nothing holds *collection*: an index build takes its lock without a budget, so look first."""
    alter(ctx, "collMod", collection)


def _sketch(ctx: "Hands", command: Command) -> None:
    ctx.sketch.add(command)
    seconds = ctx.patience.budget.total_seconds()
    ctx.sketch.lock(f"{command.collection}: an exclusive lock for a moment, waited for in turns of {seconds:g} s")
