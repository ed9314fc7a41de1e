"""What a live database holds, as rules look at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as the server lists it.

    Attributes:
        uses: How often it was used since the server started, by the member that was asked.
    """

    keys: tuple[tuple[str, int | str], ...]
    is_unique: bool = False
    is_hidden: bool = False
    uses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection as the server lists it.

    Attributes:
        kind: ``collection``, ``capped``, ``view`` or ``timeseries``.
        documents: About how many it holds.
    """

    kind: str = "collection"
    documents: int = 0
    indexes: Mapping[str, Index] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every collection of an application database, by name."""

    collections: Mapping[str, Collection]
