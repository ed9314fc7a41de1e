"""What change events say of a document: which shape was written, and which one follows; pure.

| event | what it says |
| --- | --- |
| update of fields of one shape | that shape was written |
| update of fields of both | the new one: only the new application knows both |
| insert | the shape that is there; the new one where both are |
| replacement that holds one shape | that shape |
| replacement that holds both | nothing: an application may carry along what it does not know |
| deletion | there is nothing to keep in step |
| our own write | whatever came before is settled |

The shape that was written last wins, as it is in the document. An event names the fields whose values changed, not
those that were set, so nobody can tell which part of its shape an application meant to write; it is never given a
mixture.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from migrations.online.shape import Pipeline, Shape, Side, clear, complete_new

CONTENT = ("insert", "replace")


class Written(StrEnum):
    """Which shape an application wrote."""

    OLD = "old"
    NEW = "new"
    UNKNOWN = "unknown"


def written_by(event: Mapping[str, Any], shape: Shape) -> Written | None:
    """Return what *event* wrote of the shapes; None where that is nothing."""
    if event["operationType"] in CONTENT:
        held = _names(event.get("fullDocument") or {})
        is_both = not held.isdisjoint(shape.old) and not held.isdisjoint(shape.new)
        return Written.UNKNOWN if is_both and event["operationType"] == "replace" else _touched(held, shape)
    described = event.get("updateDescription") or {}
    cut = [one["field"] for one in described.get("truncatedArrays") or ()]
    changed = [*(described.get("updatedFields") or {}), *(described.get("removedFields") or ()), *cut]
    return _touched(_names(changed), shape)


def _names(paths: Collection[str]) -> frozenset[str]:
    return frozenset(path.partition(".")[0] for path in paths)


def _touched(names: frozenset[str], shape: Shape) -> Written | None:
    if not names.isdisjoint(shape.new):
        return Written.NEW
    return None if names.isdisjoint(shape.old) else Written.OLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Stance:
    """What is being done about the shapes besides.

    Attributes:
        leaving: The shape that is being removed, if any: where it is gone it does not come back.
        is_filling: Whether the backfill runs still, so that a part of the new shape may never have been there.
    """

    leaving: Side | None = None
    is_filling: bool = False


def sides_in(document: Mapping[str, Any], shape: Shape) -> list[Side]:
    """Return the shapes of which *document* has something."""
    return [side for side in Side if any(name in document for name in shape.fields(side))]


def decide(written: Written, document: Mapping[str, Any], shape: Shape, stance: Stance) -> Pipeline:
    """Return what brings *document* into step; nothing where that is not known, or not to be done.

    Args:
        written: What was written last.
        document: Its fields of both shapes, as they are.
        shape: The shapes.
        stance: What is being done about them.
    """
    present = sides_in(document, shape)
    if written is Written.UNKNOWN and len(present) != 1:
        return []
    side = present[0] if written is Written.UNKNOWN else Side(written.value)
    if stance.leaving is side.other and stance.leaving not in present:
        return []
    if side not in present:
        return clear(shape.fields(side.other))  # it was removed, and not to be left in the other shape
    if side is Side.NEW and stance.is_filling and Side.OLD in present:
        return complete_new(shape)
    return shape.towards(side.other)
