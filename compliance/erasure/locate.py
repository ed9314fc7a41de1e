"""Find the documents of a person, step by step of a plan; reads only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from compliance.datamap.model import DataMap
from compliance.datamap.people import find_by_pseudonym, read_keys
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.rule import Delete
from compliance.datamap.subject import Identity, SubjectId, read_identity, value_at
from compliance.erasure.plan import Filter, Step, compile_steps, filter_for
from compliance.erasure.sweep import compile_needles, holds_value, normalise, sweep_collection
from compliance.mongo import Db, Document, driver_errors


@dataclass(frozen=True, slots=True)
class Locator:
    """Answers where the data of one person is in *database*.

    Attributes:
        check: Called while a collection is read in full; may end that by an error.
    """

    database: Db
    data_map: DataMap
    identity: Identity
    check: Callable[[], None] = lambda: None

    def query(self, step: Step) -> Filter | None:
        """Return the query of *step*, or None when nothing can match."""
        return filter_for(step, self.identity, self.referenced(step))

    def referenced(self, step: Step) -> list[Any]:
        """Return the ``_id`` of the documents that *step* refers to, of their old versions too."""
        if step.of is None:
            return []
        found: dict[Any, None] = {}
        history = self.data_map.history
        for other in compile_steps(self.data_map):
            if other.collection == step.of:
                found |= dict.fromkeys(document["_id"] for document in self.documents(other, {"_id": 1}))
            elif history and other.collection == step.of + history.suffix:
                for document in self.documents(other, {history.id_path: 1}):
                    found |= dict.fromkeys([document["_id"], document.get(history.id_path, document["_id"])])
        return list(found)

    def documents(self, step: Step, projection: Document | None = None) -> Iterator[Document]:
        """Yield the documents of *step*, as few fields as *projection* says."""
        if step.is_scan:
            yield from self._scan(step)
            return
        query = self.query(step)
        if query is not None:
            with driver_errors():
                yield from self.database[step.collection].find(query, projection)

    def batch(self, step: Step, size: int) -> list[Any]:
        """Return the ``_id`` of up to *size* documents of *step*."""
        return [document["_id"] for document in islice(self.documents(step, {"_id": 1}), size)]

    def count(self, step: Step, *, after: Sequence[Step] = ()) -> int:
        """Return how many documents *step* would touch once the steps *after* which it runs are done."""
        gone = [
            query
            for earlier in after
            if earlier.collection == step.collection and isinstance(earlier.action, Delete) and not earlier.is_scan
            if (query := self.query(earlier)) is not None
        ]
        if step.is_scan and (step.is_root or not gone):
            return sum(1 for _ in self._scan(step))
        found = {"_id": {"$in": self._scanned_ids(step)}} if step.is_scan else self.query(step)
        if found is None:
            return 0
        with driver_errors():
            return self.database[step.collection].count_documents({"$and": [found, *({"$nor": [q]} for q in gone)]})

    def _scanned_ids(self, step: Step) -> list[Any]:
        return [document["_id"] for document in self._scan(step)]

    def _scan(self, step: Step) -> Iterator[Document]:
        """Read the collection instead of stating a personal value in a query, which a server logs."""
        address = self.identity.values.get(str(step.key))
        if address is None:
            return
        needles = compile_needles([Identity({str(step.key): address})])
        for document in sweep_collection(self.database[step.collection], needles, check=self.check):
            is_same = value_at(document, step.path) == address  # of the root nothing less, see ``lookalikes``
            if is_same or (not step.is_root and holds_value(document, step.path, str(address))):
                yield document

    def lookalikes(self) -> int:
        """Return how many others have a root key that differs from this person's in letter case or Unicode form only.

        What refers to either of them cannot be told apart.
        """
        root, mine = self.data_map.root_key, self.identity.values.get(self.data_map.subject.key)
        if not root.personal or mine is None:
            return 0
        others = (value_at(keys, root.path) for keys in read_keys(self.database, self.data_map, check=self.check))
        same = normalise(mine)
        return sum(1 for other in others if isinstance(other, str) and other != mine and normalise(other) == same)


def find_identity(
    database: Db,
    data_map: DataMap,
    subject_id: SubjectId,
    *,
    pseudonyms: Pseudonyms | None = None,
    check: Callable[[], None] = lambda: None,
) -> Identity | None:
    """Return what the person's own document says about who it is; None when there is no such person.

    See ``find_by_pseudonym`` for the last two arguments, which count where the root key is personal.
    """
    if data_map.root_key.personal:
        return find_by_pseudonym(database, data_map, subject_id, pseudonyms=pseudonyms, check=check)
    root, key = data_map.subject, data_map.root_key
    projection = {known.path: 1 for known in root.keys.values()}
    with driver_errors():
        document = database[root.collection].find_one({key.path: subject_id}, projection)
    return read_identity(document, data_map) if document else None
