"""Ids of documents on disk instead of in memory: each once, in the order in which they came.

A private temporary file of SQLite, which nobody else sees and which is gone with the process: what is found again after
a restart need not be kept.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bson

from compliance.mongo import CODEC

_PRIVATE = ""  # the name of a temporary database on disk
_SCHEMA = "CREATE TABLE ids (place INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, is_child INTEGER NOT NULL)"
_ADD = (
    "INSERT INTO ids (id, is_child) VALUES (?, ?) "
    "ON CONFLICT (id) DO UPDATE SET is_child = 1 WHERE excluded.is_child AND NOT ids.is_child"
)
_FORWARD = "SELECT place, id FROM ids WHERE place > ? ORDER BY place LIMIT ?"
_CHILDREN_BACK = "SELECT place, id FROM ids WHERE place < ? AND is_child ORDER BY place DESC LIMIT ?"
_LAST = 2**62


@dataclass(slots=True)
class Spill:
    """Ids of documents of one collection; ``is_child`` marks those that were found through another one."""

    _database: sqlite3.Connection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._database = sqlite3.connect(_PRIVATE, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(_SCHEMA)

    def add(self, ids: Iterable[Any], *, is_child: bool = False) -> None:
        """Add those of *ids* that are new; one that is known may become a child."""
        self._database.execute("BEGIN")
        self._database.executemany(_ADD, ((_encode(id_), is_child) for id_ in ids))
        self._database.execute("COMMIT")

    def holds(self, id_: Any) -> bool:
        """Whether *id_* was added."""
        found = self._database.execute("SELECT 1 FROM ids WHERE id = ?", (_encode(id_),))
        return found.fetchone() is not None

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self._database.execute("SELECT count(*) FROM ids").fetchone()[0])

    def pages(self, size: int) -> Iterator[list[Any]]:
        """Yield pages of up to *size* ids, with those that are added meanwhile."""
        return self._pages(_FORWARD, 0, size)

    def children(self, size: int) -> Iterator[list[Any]]:
        """Yield pages of up to *size* children, the last one first."""
        return self._pages(_CHILDREN_BACK, _LAST, size)

    def _pages(self, query: str, place: int, size: int) -> Iterator[list[Any]]:
        while rows := self._database.execute(query, (place, size)).fetchall():
            place = rows[-1][0]
            yield [bson.decode(id_, CODEC)[""] for _, id_ in rows]


def _encode(id_: Any) -> bytes:
    return bson.encode({"": id_})
