"""Which steps of an erasure a legal hold leaves out; pure.

A hold on a collection leaves out what is done to that collection, to those through which its documents are found
(``of``), and to the person's own document: without them nobody could find the rest when the hold has ended. A hold on a
field does so where an action would take that field, and nothing otherwise.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.datamap.model import CHUNKS, FILES, DataMap
from compliance.datamap.rule import Keep, Pull, Update
from compliance.erasure.plan import Step
from compliance.errors import InvalidPayload

GROUND = "GDPR Art. 17(3)(e)"
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold that is active.

    Attributes:
        until: When it ends by itself; None: when it is released.
        collection: What it covers; None: everything about the person.
        field: The path within ``collection``; None: whole documents.
    """

    id: str
    case_id: str
    until: datetime | None
    collection: str | None = None
    field: str | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """What a request holds of it."""
        said = {"hold": self.id, "case": self.case_id, "collection": self.collection, "field": self.field}
        return said | {"until": self.until}


def left_out(hold: Hold, steps: Sequence[Step], data_map: DataMap) -> frozenset[int]:
    """Return the numbers of the *steps* that *hold* forbids; none where no action would touch what it covers."""
    if hold.collection is None:
        return frozenset(range(len(steps)))
    covered = _stored_as(hold.collection, data_map)
    found = {
        number for number, step in enumerate(steps) if step.collection in covered and _would_take(step, hold.field)
    }
    if not found:
        return frozenset()
    while more := _needed(found, steps, data_map) - found:
        found |= more
    return frozenset(found | _of(_with_history((data_map.subject.collection,), data_map), steps))


def kept_by(hold: Hold, steps: Sequence[Step], counts: Sequence[int], numbers: frozenset[int]) -> list[dict[str, Any]]:
    """Return what stays because of *hold*, as a request and its certificate state what is kept.

    Args:
        hold: Why it stays.
        steps: All of them.
        counts: The documents of each.
        numbers: Those that are left out.
    """
    documents: dict[str, int] = {}
    for number in sorted(numbers):
        name = steps[number].collection
        documents[name] = documents.get(name, 0) + counts[number]
    return [
        {
            "collection": name,
            "documents": count,
            "fields": [hold.field if hold.field and name == hold.collection else "*"],
            "ground": f"{GROUND}, case {hold.case_id}",
            "why": "a legal hold",
            "until": hold.until.date().isoformat() if hold.until else None,
        }
        for name, count in documents.items()
        if count
    ]


def refuse_unknown(collection: str | None, field: str | None, data_map: DataMap) -> None:
    """Return if a hold on this *collection* and *field* can be placed.

    Raises:
        InvalidPayload: When the data map does not know the collection, or there is a field without one.
    """
    if collection is None and field is not None:
        raise InvalidPayload("field: give the collection, too")
    if field is not None and not _PATH.fullmatch(field):
        raise InvalidPayload("field: expected a path such as address.city")
    known = (data_map.subject.collection, *data_map.collections)
    if collection is not None and not _stored_as(collection, data_map) & set(known):
        raise InvalidPayload(f"collection: the data map does not know it; it knows {', '.join(dict.fromkeys(known))}")


def _stored_as(collection: str, data_map: DataMap) -> frozenset[str]:
    """Return every collection in which documents of *collection* stand: files with their chunks, buckets, history."""
    bucket = collection.removesuffix(FILES).removesuffix(CHUNKS)
    is_files = f"{bucket}{FILES}" in data_map.collections
    names = [collection, *((f"{bucket}{FILES}", f"{bucket}{CHUNKS}") if is_files else ())]
    if collection in data_map.buckets:
        names += data_map.buckets[collection].named(collection)
    return _with_history(names, data_map)


def _with_history(names: Iterable[str], data_map: DataMap) -> frozenset[str]:
    suffix = data_map.history.suffix if data_map.history else ""
    return frozenset(name + end for name in names for end in ("", suffix))


def _needed(found: Iterable[int], steps: Sequence[Step], data_map: DataMap) -> set[int]:
    """Return the steps on collections through which documents of the steps *found* are reached."""
    return _of(_with_history((of for number in found if (of := steps[number].of) is not None), data_map), steps)


def _of(names: frozenset[str], steps: Sequence[Step]) -> set[int]:
    return {number for number, step in enumerate(steps) if step.collection in names}


def _would_take(step: Step, field: str | None) -> bool:
    action: Any = step.action
    if isinstance(action, Keep):
        return False
    if field is None:
        return True
    if isinstance(action, Update):
        return any(_overlap(field, touched) for touched in action.touched)
    return _overlap(field, action.array) if isinstance(action, Pull) else True


def _overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other, or lies within it."""
    a, b = (path.replace("[]", "").removesuffix("{}") for path in (one, other))
    return a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.")
