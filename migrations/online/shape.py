"""What an online change is: two shapes of the same data, and the way from each to the other; pure.

Both ways are pipelines that the server carries out on the document as it is, so no field that the script does not know
is ever lost. They are made of ``$set``, ``$addFields`` and ``$unset``, and change the fields of their shape alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from compliance.errors import MigrationError

Stage = dict[str, Any]
Pipeline = list[Stage]

SETTING: Final = ("$set", "$addFields")
UNSETTING: Final = "$unset"
STASH: Final = "__shapes"  # holds both shapes while a pipeline runs; no document ever keeps it


class Side(StrEnum):
    """One of the two shapes."""

    OLD = "old"
    NEW = "new"

    @property
    def other(self) -> "Side":
        """The other one."""
        return Side.NEW if self is Side.OLD else Side.OLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Two shapes of the documents of one collection.

    Attributes:
        collection: Its name.
        old: The fields of the old shape: names at the top of the document.
        new: Those of the new shape; no field is in both.
        up: Computes the new fields from the old ones.
        down: Computes the old fields from the new ones.
        schema_during: The ``$jsonSchema`` that allows both; None leaves the validator as it is.
        schema_after: The one that asks for the new shape; None leaves the validator as it is.
        lossy: Why ``down`` after ``up`` may give another value than there was; empty where it never does.
        error_budget: How many documents that the server refuses a step may set aside.
    """

    collection: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    up: Sequence[Mapping[str, Any]]
    down: Sequence[Mapping[str, Any]]
    schema_during: Mapping[str, Any] | None = None
    schema_after: Mapping[str, Any] | None = None
    lossy: str = ""
    error_budget: int = 100

    def fields(self, side: Side) -> tuple[str, ...]:
        """Return the fields of *side*."""
        return self.old if side is Side.OLD else self.new

    def towards(self, side: Side) -> Pipeline:
        """Return the pipeline that computes *side* from the other one."""
        return [dict(stage) for stage in (self.up if side is Side.NEW else self.down)]

    def check(self) -> None:
        """Return if this is a change that can be kept in step.

        Raises:
            MigrationError: Naming what is wrong with it.
        """
        for side in Side:
            fields = self.fields(side)
            if not fields or len(set(fields)) < len(fields):
                raise MigrationError(f"{side}: name the fields of the {side} shape, each once")
            wrong = [name for name in fields if name in ("_id", STASH) or not name or "." in name or "$" in name]
            if wrong:
                raise MigrationError(f"{side}: {', '.join(wrong)}: only fields at the top of a document, and not _id")
        both = sorted(set(self.old) & set(self.new))
        if both:
            raise MigrationError(f"{', '.join(both)}: in both shapes; give the new shape fields of its own")
        for side, name in ((Side.NEW, "up"), (Side.OLD, "down")):
            _check_pipeline(name, self.towards(side), self.fields(side))


def _check_pipeline(name: str, stages: Pipeline, fields: Iterable[str]) -> None:
    allowed = set(fields)
    if not stages:
        raise MigrationError(f"{name} is empty: it computes {', '.join(sorted(allowed))}")
    for stage in stages:
        operator = next(iter(stage), "")
        if len(stage) != 1 or operator not in (*SETTING, UNSETTING):
            raise MigrationError(f"{name}: {operator or 'an empty stage'}: only $set, $addFields and $unset")
        foreign = sorted(set(_changed(stage[operator])) - allowed)
        if foreign:
            raise MigrationError(
                f"{name} changes {', '.join(foreign)}; it may change {', '.join(sorted(allowed))} alone"
            )


def _changed(arguments: Any) -> list[str]:
    names = [arguments] if isinstance(arguments, str) else list(arguments)
    return [str(name).partition(".")[0] for name in names]


def holds(fields: Iterable[str]) -> Stage:
    """Return the filter of every document that has one of *fields*."""
    return {"$or": [{name: {"$exists": True}} for name in fields]}


def lacks(fields: Iterable[str]) -> Stage:
    """Return the filter of every document that has none of *fields*."""
    return {"$and": [{name: {"$exists": False}} for name in fields]}


def clear(fields: Iterable[str]) -> Pipeline:
    """Return the pipeline that removes *fields*."""
    return [{"$unset": list(fields)}]


def compare(shape: Shape) -> Pipeline:
    """Return the pipeline that says in ``AGREES`` whether the shapes of a document agree; all else stays as it is.

    They do when ``up`` gives the new one, or ``down`` the old one: a value that the new application wrote need not be
    one that ``up`` would give.
    """
    stages: Pipeline = [{"$set": {STASH: {side.value: _values(shape.fields(side)) for side in Side}}}]
    for side in Side:
        stages += shape.towards(side)
        same = {"$eq": [_values(shape.fields(side)), _stashed(side)]}
        stages += [{"$set": {f"{STASH}.same_{side}": same}}, _restore(shape.fields(side), side)]
    return stages


AGREES: Final = {"$or": [f"${STASH}.same_{side}" for side in Side]}
FORGET: Final = {"$unset": STASH}


def drop(shape: Shape, side: Side) -> Pipeline:
    """Return the pipeline that removes the fields of *side* where the shapes agree, and else changes nothing."""
    kept = {
        name: {"$cond": [AGREES, "$$REMOVE", _stashed(side, number)]} for number, name in enumerate(shape.fields(side))
    }
    return [*compare(shape), {"$set": kept}, FORGET]


def complete_new(shape: Shape) -> Pipeline:
    """Return the pipeline for a document of which the new application wrote a part before the backfill came.

    What it did not write comes from the old shape; then the old one follows the new one.
    """
    merged = {
        name: {"$cond": [{"$eq": [{"$type": written}, "missing"]}, f"${name}", written]}
        for name, written in ((name, _stashed(Side.NEW, number)) for number, name in enumerate(shape.new))
    }
    stash = {"$set": {STASH: {Side.NEW.value: _values(shape.new)}}}
    return [stash, *shape.towards(Side.NEW), {"$set": merged}, FORGET, *shape.towards(Side.OLD)]


def _values(fields: Sequence[str]) -> Stage:
    """One value whatever the fields hold: what is missing is missing in it, too, and null is null."""
    return {"$mergeObjects": [{f"f{number}": f"${name}" for number, name in enumerate(fields)}]}


def _stashed(side: Side, number: int | None = None) -> str:
    return f"${STASH}.{side}" + ("" if number is None else f".f{number}")


def _restore(fields: Sequence[str], side: Side) -> Stage:
    return {"$set": {name: _stashed(side, number) for number, name in enumerate(fields)}}
