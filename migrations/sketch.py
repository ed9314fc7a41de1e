"""What a dry run records of a script: its steps with the commands they would send, and what they would cost."""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Any
from uuid import UUID

from bson import Decimal128, ObjectId
from bson.binary import Binary

from migrations.command import Command
from migrations.overlay import Overlay
from migrations.step import Kind, Step

OPAQUE_IDS = (bool, int, float, datetime, ObjectId, Decimal128, Binary, UUID)  # they say nothing of who somebody is


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a step would cost, as far as that is known before it runs.

    Attributes:
        collection: What it goes through.
        documents: How many would be changed, or looked at where nothing is.
        is_counted: Whether they were counted; else they are the number that the collection has in its metadata.
        collection_documents: How many the collection has, by its metadata.
        scan: How the server would find the documents: ``IXSCAN _id_``, ``COLLSCAN``.
        batch_docs: How many documents the first batch looks at; None where there are no batches.
        batches: How many there would be if all were as large as the first; with a throttle they grow.
        seconds: How long it would take, without what it waits for others.
        rate: Documents per second by which the seconds are computed.
        is_measured: Whether former steps of this deployment went at this rate; else it is the one assumed.
        oplog_bytes: How much would be written to the oplog; None where nothing is, or where that is not known.
    """

    collection: str
    documents: int
    is_counted: bool
    collection_documents: int
    scan: str
    seconds: float
    rate: float
    is_measured: bool
    batch_docs: int | None = None
    batches: int | None = None
    oplog_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Oplog:
    """How much the oplog holds.

    Attributes:
        size_bytes: How large it may grow; what is written beyond that drops the oldest entries.
        seconds: How far back it reaches now.
    """

    size_bytes: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class PlannedStep:
    """One step as it would be carried out.

    Attributes:
        line: Of the script, where it is asked for.
        commands: Everything it would send; of a step with batches, the first one.
        notes: What it says of what it finds.
        opaque: Why its commands cannot be known before it runs; empty where they are.
        violators: How many documents break the validator that it makes strict, with no earlier step to mend them.
        expiring: How many documents the server would delete at once.
        locks: What it holds back while it runs; empty for nothing.
    """

    number: int
    kind: Kind
    what: str
    line: int | None = None
    commands: list[Command] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opaque: str = ""
    estimate: Estimate | None = None
    violators: int = 0
    expiring: int = 0
    locks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Sketch:
    """What a dry run has recorded so far.

    Attributes:
        overlay: What would be there by now; one for all scripts of a plan.
    """

    overlay: Overlay = field(default_factory=Overlay)
    steps: list[PlannedStep] = field(default_factory=list)

    def begin(self, step: Step) -> None:
        """Go on with *step*."""
        planned = PlannedStep(number=step.number, kind=step.kind, what=step.what, line=_line_of_script())
        self.steps.append(planned)

    def add(self, command: Command, *, hiding: tuple[Any, ...] = ()) -> None:
        """Record *command* of the present step.

        Args:
            command: As it would be sent.
            hiding: Ids of documents that are in it; those that could say who somebody is are not recorded.
        """
        self.overlay.apply(command)
        hidden = [value for value in hiding if value is not None and not isinstance(value, OPAQUE_IDS)]
        body = _without(command.body, hidden) if hidden else command.body
        self.steps[-1].commands.append(command.masked(body) if hidden else command)

    def note(self, line: str) -> None:
        """Keep what the present step says."""
        if self.steps and line.strip() != self.steps[-1].what:
            self.steps[-1].notes.append(line.strip())

    def lock(self, what: str) -> None:
        """Say what the present step holds back."""
        if what not in self.step.locks:
            self.step.locks.append(what)

    @property
    def step(self) -> PlannedStep:
        """The present step."""
        return self.steps[-1]


def type_of(value: Any) -> str:
    """Return what stands for *value* where it must not be shown."""
    return f"<{type(value).__name__}>"


def masked(value: Any, *, is_top: bool = True) -> Any:
    """Return *value* with operators and field names, and without anything else of what documents hold."""
    if isinstance(value, dict) and (is_top or any(str(name).startswith("$") for name in value)):
        return {name: masked(inner, is_top=str(name).startswith("$")) for name, inner in value.items()}
    if isinstance(value, list) and is_top:
        return [masked(inner) for inner in value]
    return type_of(value)


def masked_insert(command: Command) -> Command:
    """Return *command* with the types of fields instead of their values where it inserts documents."""
    if command.name != "insert":
        return command
    documents = [
        {name: value if name == "_id" else type_of(value) for name, value in document.items()}
        for document in command.body["documents"]
    ]
    return command.masked({**command.body, "documents": documents})


def masked_updates(command: Command) -> Command:
    """Return *command* with the types of values instead of them where it updates documents one by one."""
    updates = [{**one, "u": masked(one["u"])} for one in command.body["updates"]]
    return command.masked({**command.body, "updates": updates})


def _without(value: Any, hidden: list[Any]) -> Any:
    if value in hidden:
        return type_of(value)
    if isinstance(value, dict):
        return {name: _without(inner, hidden) for name, inner in value.items()}
    return [_without(inner, hidden) for inner in value] if isinstance(value, list) else value


def _line_of_script() -> int | None:
    """Return the line of the script that asks for the present step; None where no script does."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the one way to learn where a function was called
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("migration_"):
            return frame.f_lineno
        frame = frame.f_back
    return None
