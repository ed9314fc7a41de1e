"""What a live database holds, as the rules of a data map look at it; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as the server lists it.

    Attributes:
        keys: Paths in order.
        covers: The paths of its partial filter; empty where every document is in it.
        is_sparse: Whether a document without any of the keys is left out.
    """

    name: str
    keys: tuple[str, ...]
    covers: tuple[str, ...] = ()
    is_unique: bool = False
    is_sparse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One collection.

    Attributes:
        kind: ``collection``, ``view`` or ``timeseries``.
        documents: About how many.
        schema: Its ``$jsonSchema``.
        reads: The collections that a view reads.
        types: The BSON types that a sample has at the paths of the locators.
    """

    kind: str = "collection"
    documents: int = 0
    schema: Mapping[str, Any] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    reads: tuple[str, ...] = ()
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)


Catalogue = Mapping[str, Held]
