"""A step of a migration script: what it does, how far it is atomic, and how it is known again after a crash; pure.

| kind | what is one transaction | a repeat |
| --- | --- | --- |
| ``atomic`` | the whole step | never happens: the step is marked as done in that transaction |
| ``backfill`` | each batch, with the comparison of the fence and its checkpoint | goes on behind the last batch |
| ``ddl`` | nothing: MongoDB has none for it | looks at what is there first |
| ``verify`` | nothing is written | looks again |
| ``gate`` | nothing is written | waits again, unless it was passed |
| ``python`` | nothing that the engine knows of | starts over: say why that is harmless |
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bson import json_util

from migrations.meaning import meaning_of


class Kind(StrEnum):
    """How far a step is atomic."""

    ATOMIC = "atomic"
    BACKFILL = "backfill"
    DDL = "ddl"
    VERIFY = "verify"
    GATE = "gate"
    PYTHON = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a script that is to be carried out.

    Attributes:
        number: Counted from 1 in the order in which the script asks for its steps.
        what: One line for people.
        digest: SHA-256 of all that decides what it does: a script that is edited has another one.
        place: Where an interrupted run of this very step stood; empty where it begins.
    """

    number: int
    kind: Kind
    what: str
    digest: str
    place: Mapping[str, Any] = field(default_factory=dict)


def digest(kind: Kind, arguments: Mapping[str, Any]) -> str:
    """Return what tells a step from an edited one: the same for the same arguments, in every process."""
    plain = {name: _plain(value) for name, value in sorted(arguments.items())}
    return hashlib.sha256(
        json_util.dumps([kind.value, plain], json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
    ).hexdigest()


def _plain(value: Any) -> Any:
    return {"python": meaning_of(value)} if callable(value) else value
