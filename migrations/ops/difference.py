"""What changed between two versions of a document, field by field, and how to put it back; pure.

A field is named by its path through embedded documents. Arrays, and documents in which a name cannot be written as a
path (it is empty, holds a dot or begins with a dollar sign), count as one value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import bson

_MISSING = object()


class Unnameable(Exception):
    """A field of the document itself changed whose name no update can write."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a field was; ``is_there`` is False where it was missing."""

    path: str
    value: Any = None
    is_there: bool = True

    def to_document(self) -> dict[str, Any]:
        """Return what is stored."""
        return {"path": self.path} | ({"value": self.value} if self.is_there else {})

    @classmethod
    def from_document(cls, stored: Mapping[str, Any]) -> "Before":
        """Return what was stored."""
        return cls(stored["path"], stored.get("value"), "value" in stored)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Before, ...]:
    """Return what the fields were that differ, in the order of their names.

    Raises:
        Unnameable: When one of them cannot be named in an update.
    """
    if any(not _is_plain(name) for name in _changed_names(before, after)):
        raise Unnameable
    return tuple(_changes(before, after, ""))


def digest(document: Mapping[str, Any], paths: Iterable[str]) -> bytes:
    """Return the SHA-256 of what *document* holds at *paths*: values with their types, or that nothing is there."""
    found = [(path, _at(document, path)) for path in paths]
    stated = [[path] if value is _MISSING else [path, value] for path, value in found]
    return sha256(bson.encode({"": stated})).digest()


def way_back(before: Iterable[Before]) -> dict[str, Any]:
    """Return the update that puts everything back."""
    fields = list(before)
    put = {field.path: field.value for field in fields if field.is_there}
    taken = {field.path: "" for field in fields if not field.is_there}
    return ({"$set": put} if put else {}) | ({"$unset": taken} if taken else {})


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], within: str) -> Iterable[Before]:
    for name in _changed_names(before, after):
        old, new, path = before.get(name, _MISSING), after.get(name, _MISSING), f"{within}{name}"
        if isinstance(old, dict) and isinstance(new, dict) and all(map(_is_plain, _changed_names(old, new))):
            inside = list(_changes(old, new, f"{path}."))
            if inside:  # else the order of the fields changed, and nothing in them
                yield from inside
                continue
        yield Before(path, is_there=False) if old is _MISSING else Before(path, old)


def _changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = sorted({*before, *after})
    return [name for name in names if not _is_same(before.get(name, _MISSING), after.get(name, _MISSING))]


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are the same, with their types: 1 and 1.0 are equal in Python."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return bson.encode({"": one}) == bson.encode({"": other})


def _is_plain(name: str) -> bool:
    return bool(name) and "." not in name and not name.startswith("$")


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value
