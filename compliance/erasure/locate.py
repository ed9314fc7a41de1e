"""Find the documents of a person, step by step of a plan; reads only.

Memory does not grow with the documents of the person: they are read as they come, what they refer to page by page, and
where each must count once, their ids are on disk meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import bson
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument

from compliance.datamap.collection import Kind
from compliance.datamap.model import DataMap
from compliance.datamap.people import find_by_pseudonym, read_keys
from compliance.datamap.person import KeyType
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.rule import Edge
from compliance.datamap.subject import Identity, SubjectId, read_identity, to_text, value_at
from compliance.erasure.plan import Filter, Step, compile_steps, filter_for, narrowed, sole_owner
from compliance.erasure.spill import Spill
from compliance.erasure.sweep import Needles, compile_needles, normalise, sweep_collection
from compliance.erasure.values import forms_of, unpack, values_at
from compliance.errors import InvalidPayload
from compliance.mongo import CODEC, Db, Document, driver_errors

PAGE = 1000
RELAXED = CODEC.with_options(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)  # an erasure must not stumble over what it does not look for
Page = Sequence[Any]
NO_PAGE: Page = ()


@dataclass(slots=True)
class Locator:
    """Answers where the data of one person is in *database*, as it was when it was first asked.

    Attributes:
        check: Called while a collection is read in full; may end that by an error.
        page: How many referenced ids a query states.
    """

    database: Db
    data_map: DataMap
    identity: Identity
    check: Callable[[], None] = lambda: None
    page: int = PAGE
    steps: tuple[Step, ...] = field(init=False)
    _reached: dict[tuple[str, bool], Spill] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = compile_steps(self.data_map)

    def pages(self, step: Step) -> Iterator[Page]:
        """Yield what queries of *step* refer to, page by page: one empty page where it refers to no documents."""
        if step.of is None:
            yield NO_PAGE
        else:
            yield from self.reached(step).pages(self.page)

    def query(self, step: Step, page: Page = NO_PAGE) -> Filter | None:
        """Return the query of *step* for one page of what it refers to, or None when nothing can match."""
        return filter_for(step, self.identity, page)

    def referenced(self, step: Step) -> list[Any]:
        """Return the ``_id`` of the documents that *step* refers to, of their old versions too."""
        return list(chain.from_iterable(self.pages(step))) if step.of is not None else []

    def reached(self, step: Step) -> Spill:
        """Return the ids of the documents that *step* refers to and that belong to the person, each once.

        Of a tree they are those of its root first, then level by level; circles end.
        """
        if step.of is None:
            raise ValueError("the step refers to no documents")
        wanted = (step.of, _are_chunks(step))
        if wanted not in self._reached:
            self._reached[wanted] = found = Spill()
            self._reach(found, *wanted)
        return self._reached[wanted]

    def _reach(self, found: Spill, collection: str, only_what_goes: bool) -> None:  # noqa: FBT001 - passed on
        old = collection + self.data_map.history.suffix if self.data_map.history else None
        ours = [step for step in self.steps if step.collection in (collection, old) and step.passes_on]
        trees = [step for step in ours if step.of == collection]
        for step in ours:
            if step not in trees and (step.goes or not only_what_goes):
                for page in self.pages(step):
                    found.add(self._ids_for_reference(step, page))
        if trees:
            for page in found.pages(self.page):
                for step in trees:
                    found.add(self._ids_for_reference(step, page), is_child=step.is_tree)

    def _ids_for_reference(self, step: Step, page: Page) -> Iterator[Any]:
        """Yield the ids by which others refer to the documents of *step*: of old versions the first one, too."""
        id_path = self.data_map.history.id_path if self.data_map.history else "_id"
        for document in self.found(step, page, {"_id": 1, id_path: 1}, owned_alone=step.edge is Edge.OWNED):
            yield document["_id"]
            if not step.is_tree and id_path != "_id" and id_path in document:
                yield document[id_path]

    def documents(self, step: Step, projection: Document | None = None) -> Iterator[Document]:
        """Yield the documents of *step*, as few fields as *projection* says; one may come twice."""
        if step.is_tree:
            for ids in self.reached(step).children(self.page):
                yield from self._by_id(step, ids, projection)
            return
        for page in self.pages(step):
            yield from self.found(step, page, projection)

    def found(
        self, step: Step, page: Page, projection: Document | None, *, owned_alone: bool = False
    ) -> Iterator[Document]:
        """Yield the documents of *step* for one page of what it refers to; with *owned_alone* those of nobody else."""
        if step.is_scan:
            yield from self._scan(step)
            return
        query = self.query(step, page)
        if query is None:
            return
        if owned_alone:
            query = {"$and": [query, sole_owner(step, self.identity, page)]}
        with driver_errors():
            yield from self.database[step.collection].find(query, projection)

    def _by_id(self, step: Step, ids: Page, projection: Document | None) -> Iterator[Document]:
        with driver_errors():
            query = {"$and": [{"_id": {"$in": list(ids)}}, *narrowed(step, self.identity)]}
            yield from self.database[step.collection].find(query, projection)

    def late(self, step: Step, ids: Page, size: int) -> list[Any]:
        """Return the ``_id`` of up to *size* documents of *step* that refer to *ids*; of a tree those not known yet."""
        found = (document["_id"] for document in self.found(step, ids, {"_id": 1}))
        if not step.is_tree:
            return list(islice(found, size))
        known = self.reached(step)
        late = list(islice((id_ for id_ in found if not known.holds(id_)), size))
        known.add(late, is_child=True)
        return late

    def refers(self, step: Step, document: Mapping[str, Any]) -> bool:
        """Whether *document* refers to a document of the person, as *step* says."""
        known = self.reached(step)
        values = values_at(document, step.path)
        return any(known.holds(form) for value in values for form in (value, *_as_ids(value, step)))

    def count(self, step: Step, *, after: Sequence[Step] = ()) -> int:
        """Return how many documents *step* would touch once the steps *after* which it runs are done."""
        earlier = [other for other in after if other.collection == step.collection and other.goes]
        if any(other.is_scan or other.of is not None for other in (step, *earlier)):
            return self._count_each_once(step, earlier)
        gone = [self._what_goes(other) for other in earlier]
        found = self.query(step)
        if found is None:
            return 0
        nor = [query for query in gone if query is not None]
        with driver_errors():
            return self.database[step.collection].count_documents({"$and": [found, *({"$nor": [q]} for q in nor)]})

    def _what_goes(self, step: Step) -> Filter | None:
        query = self.query(step)
        if query is None or step.edge is not Edge.OWNED:
            return query
        return {"$and": [query, sole_owner(step, self.identity, NO_PAGE)]}

    def _count_each_once(self, step: Step, earlier: Iterable[Step]) -> int:
        seen = Spill()
        for other in earlier:
            for page in self.pages(other) if not other.is_tree else ():
                found = self.found(other, page, {"_id": 1}, owned_alone=other.edge is Edge.OWNED)
                seen.add(document["_id"] for document in found)
            if other.is_tree:
                seen.add(document["_id"] for document in self.documents(other, {"_id": 1}))
        before = len(seen)
        seen.add(document["_id"] for document in self.documents(step, {"_id": 1}))
        return len(seen) - before

    def _scan(self, step: Step) -> Iterator[Document]:
        """Read the collection instead of stating a personal value in a query, which a server logs."""
        match = Matcher.of(step, self.identity)
        if match is None:
            return
        query = {"$and": narrowed(step, self.identity)}
        needles = _Any() if step.encoded else match.needles
        for document in sweep_collection(self.database[step.collection], needles, query=query, check=self.check):
            if match.is_of(document):
                yield document

    def lookalikes(self) -> int:
        """Return how many others have a root key that differs from this person's in letter case or Unicode form only.

        What refers to either of them cannot be told apart.
        """
        root, mine = self.data_map.root_key, self.identity.values.get(self.data_map.subject.key)
        if not root.personal or mine is None:
            return 0
        people = read_keys(self.database, self.data_map, tenant=self.identity.tenant, check=self.check)
        others = (value_at(keys, root.path) for keys in people)
        same = normalise(mine)
        return sum(1 for other in others if isinstance(other, str) and other != mine and normalise(other) == same)


def _are_chunks(step: Step) -> bool:
    """Whether *step* takes the chunks of files: they go where their files do, and stay where those stay."""
    return step.kind is Kind.GRIDFS and step.path == "files_id"


def _as_ids(value: Any, step: Step) -> list[Any]:
    """Return the ids that *value* may state where it is stored in another type than they are."""
    return forms_of(value, tuple(KeyType)) if step.stored and value is not None else []


class _Any:
    """Finds something in every document."""

    def found_in(self, raw: bytes) -> bool:  # noqa: ARG002 - as every finder
        """Return True."""
        return True


@dataclass(frozen=True, slots=True)
class Matcher:
    """Tells whether a document that was read is one of *step*."""

    step: Step
    value: Any = field(repr=False)
    needles: Needles = field(repr=False)

    @classmethod
    def of(cls, step: Step, identity: Identity) -> "Matcher | None":
        """Return what recognises the documents of *step*; None where the key of the person is not known."""
        value = identity.values.get(str(step.key))
        return None if value is None else cls(step, value, compile_needles([Identity({str(step.key): value})]))

    def is_of(self, document: Mapping[str, Any]) -> bool:
        """Whether *document* states the person where the step says; of the root nothing less than the value itself."""
        plain = read_raw(document)
        if self.step.is_root:
            return bool(value_at(plain, self.step.path) == self.value)
        return any(map(self._is_said_by, values_at(plain, self.step.path)))

    def _is_said_by(self, found: Any) -> bool:
        if self.step.encoded:
            content = unpack(found, self.step.encoded)
            return content is not None and self.needles.found_in(bson.encode({"": content}))
        if not isinstance(found, str):
            return bool(found == self.value)
        said, wanted = normalise(found), normalise(to_text(self.value))
        if self.step.prefix is None:
            return said == wanted
        start = normalise(self.step.prefix + to_text(self.value) + self.step.suffix)
        return said.startswith(start) and (bool(self.step.suffix) or not said[len(start) : len(start) + 1].isalnum())


def read_raw(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a raw document with its parts as they are walked through."""
    return bson.decode(document.raw, RELAXED) if isinstance(document, RawBSONDocument) else document


def find_identity(
    database: Db,
    data_map: DataMap,
    subject_id: SubjectId,
    *,
    tenant: Any = None,
    pseudonyms: Pseudonyms | None = None,
    check: Callable[[], None] = lambda: None,
) -> Identity | None:
    """Return what the person's own document says about who it is; None when there is no such person.

    See ``find_by_pseudonym`` for the last two arguments, which count where the root key is personal.

    Raises:
        InvalidPayload: When several organisations share the database, and *tenant* does not say whose person it is.
    """
    if data_map.tenant is not None and tenant is None:
        raise InvalidPayload("tenant: several organisations share this database; say whose person it is")
    if data_map.root_key.personal:
        return find_by_pseudonym(database, data_map, subject_id, tenant=tenant, pseudonyms=pseudonyms, check=check)
    root, key = data_map.subject, data_map.root_key
    projection = {known.path: 1 for known in root.keys.values()}
    query = {key.path: subject_id} | ({data_map.tenant.field: tenant} if data_map.tenant else {})
    with driver_errors():
        document = database[root.collection].find_one(query, projection)
    return replace(read_identity(document, data_map), tenant=tenant) if document else None
