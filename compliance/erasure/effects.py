"""Change a batch of documents of a step in one transaction; each is looked at again, so nobody else's is touched."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ReplaceOne, UpdateOne
from pymongo.collection import Collection

from compliance.datamap.rule import Archive, Delete, Edge, Update
from compliance.erasure.copies import forget
from compliance.erasure.locate import RELAXED, Locator, Matcher, Page
from compliance.erasure.plan import Filter, Step, filter_for, narrowed, sole_owner, update_for
from compliance.errors import ErasureIncomplete
from compliance.masking import STRATEGIES
from compliance.mongo import Document, Session
from compliance.roles import PRE_IMAGES

ARCHIVED_AT = "archived_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Documents of *step* that are to be changed.

    Attributes:
        ids: Of the documents, as they were found.
        page: What the step refers to, as they were found by.
        key: Of the masks; lives as long as the attempt.
        now: When it happens, for what is archived.
    """

    locator: Locator
    step: Step
    ids: Sequence[Any]
    page: Page
    key: bytes = field(repr=False)
    now: datetime

    @property
    def _collection(self) -> Collection[Document]:
        return self.locator.database[self.step.collection]

    def apply(self, session: Session) -> Counter[str]:
        """Change the documents that are still the person's in the transaction of *session*; return how many, by verb.

        Copies that migrations keep go along. A personal key stays out of the query: documents that are found by
        reading are read again here, and who changes one meanwhile meets a write conflict.
        """
        guard = self._guard(session)
        forget(self.locator.database, self.step.collection, self._copied(guard, session), session=session)
        match self.step.action:
            case Delete() if self.step.edge is Edge.OWNED:
                return self._leave(guard, session)
            case Delete():
                return Counter(delete=self._collection.delete_many(guard, session=session).deleted_count)
            case Archive(to=to, fields=fields):
                return Counter(archive=self._archive(guard, to, fields, session))
            case Update(mask=mask) if mask:
                return Counter(update=self._mask(guard, mask, session))
            case _:
                return Counter({self.step.verb: self._update(guard, session)})

    def _copied(self, guard: Filter, session: Session) -> list[Any]:
        """Return the ids of documents of which copies go along: where one was overwritten, those that are still hers.

        A copy for a rebuilt collection is made again, so that it harms nobody to take one away.
        """
        overwritten = {"collection": self.step.collection}  # asked without the ids, which costs more than the rest
        if self.locator.database[PRE_IMAGES].find_one(overwritten, {"_id": 1}, session=session) is None:
            return list(self.ids)
        return [found["_id"] for found in self._collection.find(guard, {"_id": 1}, session=session)]

    def _guard(self, session: Session) -> Filter:
        """Return the query of those that are still the person's."""
        if self.step.is_scan or self.step.is_tree:
            still = [found["_id"] for found in self._read(session) if self._is_mine(found)]
            return {"$and": [{"_id": {"$in": still}}, *narrowed(self.step, self.locator.identity)]}
        mine = filter_for(self.step, self.locator.identity, self.page)
        return {"$and": [{"_id": {"$in": list(self.ids)}}, *([mine] if mine else [{"_id": {"$in": []}}])]}

    def _read(self, session: Session) -> list[Document]:
        path = self.step.path.replace("[]", "").removesuffix("{}")
        wanted = {"_id": 1} | ({path: 1} if path != "_id" else {})
        relaxed = self._collection.with_options(RELAXED)
        return list(relaxed.find({"_id": {"$in": list(self.ids)}}, wanted, session=session))

    def _is_mine(self, document: Mapping[str, Any]) -> bool:
        if self.step.is_tree:
            return self.locator.refers(self.step, document)
        match = Matcher.of(self.step, self.locator.identity)
        return match is not None and match.is_of(document)

    def _leave(self, guard: Filter, session: Session) -> Counter[str]:
        """Delete what nobody else stands in; leave the rest, decided by the statement that does it."""
        alone = sole_owner(self.step, self.locator.identity, self.page)
        gone = self._collection.delete_many({"$and": [guard, alone]}, session=session).deleted_count
        return Counter(delete=gone, pull=self._update(guard, session))

    def _update(self, guard: Filter, session: Session) -> int:
        update = update_for(self.step.action, self.step, self.locator.identity, self.page)
        return self._collection.update_many(guard, update, session=session).modified_count

    def _archive(self, guard: Filter, to: str, fields: Sequence[str], session: Session) -> int:
        wanted = {"_id": 1} | dict.fromkeys(fields, 1)
        found = list(self._collection.find(guard, wanted, session=session))
        copies = [
            ReplaceOne({"_id": one["_id"]}, {**one, ARCHIVED_AT: self.now}, upsert=True) for one in found
        ]  # a repeat finds nothing to copy
        if copies:
            self.locator.database[to].bulk_write(copies, session=session)
        gone = {"_id": {"$in": [one["_id"] for one in found]}}
        return self._collection.delete_many(gone, session=session).deleted_count

    def _mask(self, guard: Filter, mask: Mapping[str, str], session: Session) -> int:
        found = self._collection.find(guard, {"_id": 1} | dict.fromkeys(mask, 1), session=session)
        also: Any = update_for(self.step.action, self.step, self.locator.identity, self.page)
        updates = ((one["_id"], self._with_masks(one, mask, also)) for one in found)
        changes = [UpdateOne({"_id": id_}, update) for id_, update in updates if update]
        if not changes:
            return 0
        return self._collection.bulk_write(changes, ordered=False, session=session).modified_count

    def _with_masks(self, document: Document, mask: Mapping[str, str], also: Mapping[str, Any]) -> Document:
        masks = {
            path: STRATEGIES[name](value, self.key)
            for path, name in mask.items()
            for value in self._there(document, path)
        }
        return {**also, "$set": {**also.get("$set", {}), **masks}} if masks else dict(also)

    def _there(self, document: Document, path: str) -> list[Any]:
        """Return what stands at *path*: one value, or none."""
        value: Any = document
        for part in path.split("."):
            if isinstance(value, list):
                raise ErasureIncomplete(
                    f"{self.step.collection}: mask {path} goes through an array in some documents; mask or unset the "
                    "whole array"
                )
            if not isinstance(value, dict) or part not in value:
                return []
            value = value[part]
        return [value]
