"""What a live database holds, and what a dry run on it saw, as rules look at it."""

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One step of a script that is pending, as a dry run on the database saw it.

    Attributes:
        line: Of the script, where it is asked for.
        collection: What it goes through; empty where it goes through none.
        collection_documents: How many that holds.
        builds: Whether it builds an index.
        violators: How many documents break the validator that it makes strict, with no earlier step to mend them.
        expiring: How many documents the server would delete at once.
        oplog_share: How much of the oplog it writes; 0.0 where that is not known.
    """

    line: int = 1
    collection: str = ""
    collection_documents: int = 0
    builds: bool = False
    violators: int = 0
    expiring: int = 0
    oplog_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every collection of an application database, by name.

    Attributes:
        steps: What a dry run saw of scripts that are pending, by file.
    """

    collections: Mapping[str, Collection]
    steps: Mapping[str, Sequence[Sighting]] = field(default_factory=dict)
