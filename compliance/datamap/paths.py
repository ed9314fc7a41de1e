"""The paths of a document as a data map writes them, and whether a map declares them; pure.

``genres[]`` is an element of an array, ``members[].user_id`` a field of one. Where the names of the fields are data
themselves (a map by user id), they are folded to ``{}``, and everything below has the path of the fold.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from compliance.datamap.collection import FieldOf
from compliance.datamap.form import is_under
from compliance.datamap.model import DataMap

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA = re.compile(r"[0-9a-f]{16}|[0-9]{5}", re.IGNORECASE)
_LONGEST_NAME = 64


def is_dynamic(name: str) -> bool:
    """Whether a field name is data: an id, a number, an address, or what no path can hold."""
    return len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or _DATA.search(name) is not None


def values_along(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    """Yield what stands at *parts*, through every array on the way, as queries go."""
    if isinstance(value, list):
        for element in value:
            yield from values_along(element, parts)
    elif not parts:
        yield value
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from values_along(value[parts[0]], parts[1:])


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a document that holds no others with its path; empty arrays and documents, too.

    Names that are data are yielded with the path of their fold, for they may be personal.
    """
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            if path.endswith("{}"):
                yield path, name
                yield from walk(inner, path)
            elif is_dynamic(name):
                yield f"{path}{{}}", name
                yield from walk(inner, f"{path}{{}}")
            else:
                yield from walk(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for element in value:
            yield from walk(element, path if path.endswith("{}") else f"{path}[]")
    else:
        yield path, value


def declaring(path: str, fields: Mapping[str, FieldOf]) -> FieldOf | None:
    """Return what declares *path*: the field itself, or the nearest one that it is a part of; None where none does."""
    found = [name for name in fields if is_under(path, name)]
    return fields[max(found, key=len)] if found else None


def is_declared(path: str, value: Any, fields: Mapping[str, FieldOf]) -> bool:
    """Whether *fields* declare *path*; what is empty may stand where the parts of it are declared."""
    if declaring(path, fields) is not None:
        return True
    is_empty = value is None or value in ({}, [])
    return is_empty and any(is_under(name, path) for name in fields)


def undeclared(documents: Iterable[Mapping[str, Any]], fields: Mapping[str, FieldOf]) -> set[str]:
    """Return the paths of *documents* that *fields* do not declare."""
    return {path for document in documents for path, value in walk(document) if not is_declared(path, value, fields)}


def fields_of(collection: str, data_map: DataMap) -> Mapping[str, FieldOf] | None:
    """Return what *collection* is said to hold, old versions too; None where the map does not know the collection."""
    if collection in data_map.collections:
        return data_map.collections[collection].fields
    history = data_map.history
    base = collection.removesuffix(history.suffix) if history else collection
    if history is None or base == collection or base not in data_map.collections:
        return None
    return {**data_map.collections[base].fields, **history.fields}


def is_closed(collection: str, data_map: DataMap) -> bool:
    """Whether every path of *collection*, or of what it holds old versions of, must be declared."""
    suffix = data_map.history.suffix if data_map.history else ""
    names = (collection, collection.removesuffix(suffix) if suffix else collection)
    return any(data_map.collections[name].closed for name in names if name in data_map.collections)
