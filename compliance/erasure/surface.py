"""Where data of an erased person may last beside the collections, and how far an erasure has come with that; pure.

Levels of an erasure:

- ``E1``: gone from the declared places;
- ``E2``: looked for in every collection, and not found;
- ``E3``: gone also from what the engine keeps (oplog, pre-images, profile, logs);
- ``E4``: gone also from backups and packages.

Source: Data-CASE (arXiv 2308.07501), which tells such levels apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """What is known about a surface.

    Attributes:
        CLEAN: Nothing about the person is on it.
        EXPIRES: What is on it goes away by itself, at a known time.
        UNKNOWN: Nobody here can tell; a person has to do something.
    """

    CLEAN = "clean"
    EXPIRES = "expires"
    UNKNOWN = "unknown"


class Level(StrEnum):
    """How far an erasure has come."""

    E1 = "E1"
    E2 = "E2"
    E3 = "E3"
    E4 = "E4"


OPLOG, PRE_IMAGES, PROFILE, LOGS = "oplog", "change_stream_pre_images", "profile", "server_logs"
MIGRATIONS, PACKAGES, BACKUPS = "copies_of_migrations", "packages", "backups"
ENGINE = frozenset({OPLOG, PRE_IMAGES, PROFILE, LOGS, MIGRATIONS})
OUTSIDE = frozenset({PACKAGES, BACKUPS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One surface as it was found.

    Attributes:
        evidence: A sentence of ours with what was seen: counts and dates, never a value.
        expires_at: When it is clean by itself; only with `State.EXPIRES`.
        todo: What a person has to do; only with `State.UNKNOWN`.

    Raises:
        ValueError: When date or advice do not fit the state.
    """

    name: str
    state: State
    evidence: str
    expires_at: datetime | None = None
    todo: str | None = None

    def __post_init__(self) -> None:
        if (self.expires_at is not None) != (self.state is State.EXPIRES):
            raise ValueError("a surface has a date if it expires, and else none")
        if (self.todo is not None) != (self.state is State.UNKNOWN):
            raise ValueError("a surface says what to do if nobody knows about it, and else nothing")


def clean(name: str, evidence: str) -> Surface:
    """Return a surface on which nothing is."""
    return Surface(name=name, state=State.CLEAN, evidence=evidence)


def expires(name: str, at: datetime, evidence: str) -> Surface:
    """Return a surface that is clean from *at* on."""
    return Surface(name=name, state=State.EXPIRES, evidence=evidence, expires_at=at)


def unknown(name: str, evidence: str, *, todo: str) -> Surface:
    """Return a surface about which nobody here can tell."""
    return Surface(name=name, state=State.UNKNOWN, evidence=evidence, todo=todo)


def level_of(surfaces: Iterable[Surface]) -> Level:
    """Return how far an erasure has come that was verified in every collection.

    A surface that nobody looked at counts as unknown.
    """
    found = {surface.name for surface in surfaces if surface.state is State.CLEAN}
    if not found >= ENGINE:
        return Level.E2
    return Level.E4 if found >= OUTSIDE else Level.E3
