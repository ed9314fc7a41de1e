"""What an index is: as it was declared, compared with what a server lists; pure.

A server completes what it is given: a collation with its defaults, a text index with weights and languages, and it
lists the fields of a text index as one. So what was declared is looked for in what is there, and only what changes the
meaning of the index counts beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import bson

Keys = Sequence[tuple[str, int | str]]
Options = Mapping[str, Any]

OPTIONS = (
    "2dsphereIndexVersion",
    "bits",
    "collation",
    "default_language",
    "expireAfterSeconds",
    "language_override",
    "max",
    "min",
    "partialFilterExpression",
    "sparse",
    "textIndexVersion",
    "weights",
    "wildcardProjection",
)
_SIMPLE = {"locale": "simple"}
_COUNTS_UNSAID = ("unique", "sparse", "partialFilterExpression", "expireAfterSeconds", "wildcardProjection")
_TEXT = "text"


def server_keys(keys: Keys) -> list[tuple[str, int | str]]:
    """Return *keys* as a server lists them: all text fields as one, at the place of the first."""
    listed: list[tuple[str, int | str]] = []
    for field, direction in keys:
        if direction != _TEXT:
            listed.append((field, direction))
        elif ("_fts", _TEXT) not in listed:
            listed += [("_fts", _TEXT), ("_ftsx", 1)]
    return listed


def keys_of(observed: Mapping[str, Any]) -> list[tuple[str, int | str]]:
    """Return the keys by which an index would be declared that is there."""
    listed: list[tuple[str, int | str]] = []
    for field, direction in observed["key"].items():
        if field == "_fts":
            listed += [(name, _TEXT) for name in observed["weights"]]
        elif field != "_ftsx":
            listed.append((field, direction))
    return listed


def options_of(observed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by which an index would be declared that is there."""
    return {name: observed[name] for name in OPTIONS if name in observed}


def differences(keys: Keys, options: Options, observed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in what the *observed* index is not the declared one: ``key`` or names of options; empty where it is.

    Args:
        keys: The declared fields.
        options: The declared options by the server's names, ``unique`` among them.
        observed: An index as ``listIndexes`` shows it.
    """
    found = ("key",) if [tuple(key) for key in observed["key"].items()] != server_keys(keys) else ()
    wanted = _plain({**options, **_text_weights(keys, options)})
    present = _plain({name: value for name, value in observed.items() if name != "key"})
    names = dict.fromkeys((*wanted, *(name for name in _COUNTS_UNSAID if name in present)))
    return (*found, *(name for name in names if not _is_same(name, wanted.get(name), present.get(name))))


def conflicts(keys: Keys, options: Options, observed: Mapping[str, Any]) -> bool:
    """Whether the *observed* index makes the declared one superfluous, or the server refuses it beside that one."""
    signature = {"key", "sparse", "partialFilterExpression", "collation"}
    if _TEXT in (direction for _, direction in keys):
        return "_fts" in observed["key"]  # one text index per collection
    return not signature & set(differences(keys, {"collation": _SIMPLE, **options}, observed))


def _is_same(name: str, wanted: Any, present: Any) -> bool:
    if name == "collation":
        given = {} if wanted == _SIMPLE else wanted or {}
        return bool(given) == bool(present) and given.items() <= (present or {}).items()
    if name in {"unique", "sparse"}:
        return bool(wanted) == bool(present)
    return bool(wanted == present)


def _text_weights(keys: Keys, options: Options) -> dict[str, Any]:
    weights = dict.fromkeys((field for field, direction in keys if direction == _TEXT), 1)
    return {"weights": {**weights, **options.get("weights", {})}} if weights else {}


def _plain(options: Options) -> dict[str, Any]:
    """What a server would return: times without zone, numbers and documents as BSON keeps them."""
    return bson.decode(bson.encode(dict(options)))
