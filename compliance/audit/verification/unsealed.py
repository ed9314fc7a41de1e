"""Entries that no batch holds, and entries that are sealed twice.

Ids are compared, not entries: only those of entries that no batch holds are read. What a stranger put there may have an
id of any shape, so it is asked for by the bytes that the server gave.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from bson.raw_bson import RawBSONDocument

from compliance.audit.answers import find_entries
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.stored import find_stored_fault, read_stored, stored_entries, stored_id
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import MAX_FINDINGS, Fault, Findings
from compliance.audit.verification.readers import parts
from compliance.audit.verification.tally import DIGITS, Difference, Tally, after, packed, prefix
from compliance.audit.verification.times import SEALED_WITHIN
from compliance.mongo import Databases, driver_errors

AT_ONCE = 20_000  # ids of one answer of the server
HELD = 250_000  # ids in memory
ASKED = 1_000  # ids of one question
ONLY_ID = {"_id": 1}

_ROW = re.compile(rb"\x2f\x00\x00\x00\x02_id\x00\x21\x00\x00\x00([0-9a-f]{32})\x00\x00")  # a document of an id only
_ROW_BYTES = 47
_EMPTY = 5  # bytes of a document without a field


@dataclass(slots=True, kw_only=True)
class Unsealed:
    """Looks for entries that no batch holds.

    Attributes:
        now: The time by which an entry that is not sealed is late.
        held: How many ids may be in memory.
    """

    databases: Databases
    trust: Trust
    now: datetime
    findings: Findings
    held: int = HELD

    def look_at_all(self, tally: Tally, *, verified: Mapping[str, int]) -> int:
        """Compare all ids of the collection with those that are sealed; return how many entries need no seal yet.

        Args:
            tally: The ids that verified batches hold, of entries that are there.
            verified: How many entries of each log that are.
        """
        there, odd = self._tally_there(tally.key)
        pending = self._judge(self._read_odd(odd))
        found = tally.difference(there)
        self._say_twice(raw for part in parts(found.less, ASKED) for raw in self.read(part, ONLY_ID))
        pending += self._judge(self.read(self._never_sealed(found, verified)))
        for groups in packed(
            found.groups, (there.count(group) + tally.count(group) for group in found.groups), most=self.held
        ):
            pending += self._judge(self.read(self._compare(groups)))
        return pending

    def look_since(self, begin: datetime) -> int:
        """Look at entries with a time from *begin* on; return how many of them need no seal yet."""
        pending = 0
        for rows in parts(self._rows({"created_at": {"$gte": begin}}), self.held):
            odd = [row for row in rows if stored_id(row) is None]
            left = {id_ for row in rows if (id_ := stored_id(row)) is not None}
            for log in self._seals.logs():
                for sealed in self._seals.ids_since(log, begin - CLOCKS_APART):
                    left.difference_update(sealed.ids)
            pending += self._judge(self._read_odd(odd[:MAX_FINDINGS])) + self._judge(self.read(left))
        return pending

    def say_fault(self, raw: RawBSONDocument, and_: str) -> bool:
        """Say what is wrong with an entry alone, if anything is."""
        fault = find_stored_fault(raw, self.trust)
        if fault is not None:
            kind, _, why = fault.partition(" ")
            self.findings.add(Fault(kind), _shown(raw), f"{and_}, and {why}")
        return fault is not None

    @property
    def _seals(self) -> Seals:
        return Seals(self.databases)

    def _judge(self, entries: Iterable[RawBSONDocument]) -> int:
        """Say of each entry that no batch holds it; return how many are so new that none has to."""
        pending = 0
        for raw in entries:
            if self.say_fault(raw, "it is not sealed"):
                continue
            created_at = read_stored(raw).get("created_at")
            if isinstance(created_at, datetime) and created_at > self.now - SEALED_WITHIN:
                pending += 1
            else:
                self.findings.add(Fault.UNSEALED, _shown(raw), "no batch holds it")
        return pending

    def _tally_there(self, key: int) -> tuple[Tally, list[bytes]]:
        """Return the tally of the ids of the collection, and documents of ids that are no ids."""
        there, odd = Tally(key), list[bytes]()
        for rows in self._answers({}, hint="_id_"):
            data = b"".join(rows)
            ids = _ROW.findall(data)
            if len(ids) * _ROW_BYTES != len(data):
                ids = [found[1] for found in map(_ROW.fullmatch, rows) if found is not None]
                odd += [row for row in rows if not _ROW.fullmatch(row)][: MAX_FINDINGS - len(odd)]
            there.add(ids)
        return there, odd

    def _never_sealed(self, found: Difference, verified: Mapping[str, int]) -> set[str]:
        """Return the ids that no batch holds, of those that no batch held while it was verified."""
        left = set(found.more)
        for log in self._seals.logs() if left else ():
            for sealed in self._seals.ids_behind(log, verified.get(log, 0)):
                left.difference_update(sealed.ids)
        return left

    def _compare(self, groups: list[int]) -> set[str]:
        """Return the ids of *groups* that no batch holds, and say which are sealed twice."""
        wanted, there = {prefix(group) for group in groups}, set[str]()
        for group in groups:
            rows = self._rows({"_id": {"$gte": prefix(group), "$lt": after(group)}})
            there.update(id_ for row in rows if (id_ := stored_id(row)) is not None)
        sealed = set[str]()
        for log in self._seals.logs():
            for batch in self._seals.ids_behind(log, 0):
                for id_ in batch.ids:
                    if id_[:DIGITS] in wanted and id_ in there:
                        if id_ in sealed:
                            self.findings.add(Fault.FORGED, f"entry {id_}", "it is sealed twice")
                        sealed.add(id_)
        return there - sealed

    def _say_twice(self, rows: Iterable[RawBSONDocument]) -> None:
        for row in rows:
            self.findings.add(Fault.FORGED, _shown(row), "it is sealed twice")

    def _rows(self, query: Mapping[str, object]) -> Iterator[bytes]:
        """Yield the ids of entries, each in a document of its own."""
        return chain.from_iterable(self._answers(query))

    def _answers(self, query: Mapping[str, object], **options: str) -> Iterator[list[bytes]]:
        return find_entries(self.databases, query, at_once=AT_ONCE, projection=ONLY_ID, **options)

    def read(self, ids: Iterable[str], fields: Mapping[str, int] | None = None) -> Iterator[RawBSONDocument]:
        """Yield the entries with *ids* that are there."""
        for part in parts(sorted(ids), ASKED):
            with driver_errors():
                yield from stored_entries(self.databases).find({"_id": {"$in": part}}, fields)

    def _read_odd(self, rows: Iterable[bytes]) -> Iterator[RawBSONDocument]:
        for row in rows:
            with driver_errors():
                yield from stored_entries(self.databases).find(_query(row)).limit(1)


def _query(row: bytes) -> Mapping[str, object]:
    """Return the question for the entry of an id, whatever that is: a text that is no text cannot be decoded."""
    if len(row) == _EMPTY:
        return {"_id": {"$exists": False}}
    equal = row[4:5] + b"$eq\x00" + row[9:-1]  # behind type and name stands the value, behind the value the end
    return {"_id": RawBSONDocument(struct.pack("<i", len(equal) + 5) + equal + b"\x00")}


def _shown(raw: RawBSONDocument) -> str:
    return f"entry {stored_id(raw) or 'with an id that is none'}"
