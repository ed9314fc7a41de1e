"""Tell which documents belong to people under a legal hold: those, and what refers to them, stay."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from compliance.datamap.model import DataMap
from compliance.datamap.people import read_keys
from compliance.datamap.pseudonym import VARIABLE, Pseudonyms, is_pseudonym
from compliance.datamap.subject import Identity, SubjectId, read_identity, value_at
from compliance.erasure.holds import Holds
from compliance.erasure.keyed import KeyedNeedles
from compliance.erasure.sweep import Finder, compile_needles
from compliance.errors import ConfigurationError
from compliance.mongo import CODEC, Databases, Db, Document, Session
from compliance.retention.rule import parents_of

RAW = CODEC.with_options(
    document_class=RawBSONDocument,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)  # must not stumble over what it does not look for
DEEPEST = 30  # references in a row that are followed; what lies deeper counts as held


@dataclass(slots=True, kw_only=True)
class HeldPeople:
    """The people under a legal hold, as they stand when they are asked for.

    Attributes:
        check: Called while the keys of all people are read; may end that by an error.
    """

    databases: Databases
    data_map: DataMap
    pseudonyms: Pseudonyms | None
    check: Callable[[], None] = lambda: None
    _ids: frozenset[Any] = field(init=False, default=frozenset())
    _finders: tuple[Finder, ...] = field(init=False, default=())

    @property
    def are_any(self) -> bool:
        """Whether anybody was under a hold when the holds were read."""
        return bool(self._finders)

    def refresh(self, *, now: datetime) -> None:
        """Read the holds again.

        Raises:
            ConfigurationError: When one is on a person whom this process cannot recognise.
        """
        ids = frozenset(Holds(self.databases).held(now=now))
        if ids != self._ids:
            self._ids, self._finders = ids, tuple(self._compile(ids))

    def among(
        self, collection: str, documents: Iterable[RawBSONDocument], *, session: Session | None = None
    ) -> set[bytes]:
        """Return the keys (see ``key_of``) of those among *documents* of *collection* that are theirs."""
        return self._among(collection, list(documents), session, DEEPEST)

    def _among(
        self, collection: str, documents: Sequence[RawBSONDocument], session: Session | None, depth: int
    ) -> set[bytes]:
        if not self._finders:
            return set()
        held = {
            key_of(one["_id"]) for one in documents if any(found.found_in(bytes(one.raw)) for found in self._finders)
        }
        for path, parent in parents_of(collection, self.data_map):
            rest = [one for one in documents if key_of(one["_id"]) not in held]
            if depth == 0:
                return held | {key_of(one["_id"]) for one in rest}
            stated = {key_of(one["_id"]): _references(one, path) for one in rest}
            wanted = {key_of(value): value for values in stated.values() for value in values}
            if not wanted:
                continue
            read = list(_raw(self.databases.app, parent).find({"_id": {"$in": list(wanted.values())}}, session=session))
            theirs = self._among(parent, read, session, depth - 1)
            held |= {key for key, values in stated.items() if any(key_of(value) in theirs for value in values)}
        return held

    def _compile(self, ids: frozenset[SubjectId]) -> Iterator[Finder]:
        """Yield what finds the people: by all their keys while their documents are there, by their ids anyway."""
        if not ids:
            return
        if not self.data_map.root_key.personal:
            key = self.data_map.subject.key
            yield compile_needles([*(Identity({key: id_}) for id_ in ids), *self._present(ids)])
            return
        known = self.pseudonyms
        names = frozenset(map(str, ids))
        if known is None or not all(is_pseudonym(name) and known.knows_key_of(name) for name in names):
            raise ConfigurationError(
                f"people are under a legal hold whom this process cannot recognise: {VARIABLE} does not hold the key "
                "of their pseudonyms; give it the keys of the workers, old ones, too"
            )
        yield KeyedNeedles(known, names)
        yield compile_needles(self._named(known, names))

    def _present(self, ids: frozenset[SubjectId]) -> Iterator[Identity]:
        subject, path = self.data_map.subject, self.data_map.root_key.path
        wanted = {key.path: 1 for key in subject.keys.values()}
        for document in self.databases.app[subject.collection].find({path: {"$in": list(ids)}}, wanted):
            yield read_identity(document, self.data_map)

    def _named(self, known: Pseudonyms, names: frozenset[str]) -> Iterator[Identity]:
        path = self.data_map.root_key.path
        for document in read_keys(self.databases.app, self.data_map, check=self.check):
            value = value_at(document, path)
            if isinstance(value, str) and not names.isdisjoint(known.all_of(value)):
                yield read_identity(document, self.data_map)


def key_of(value: Any) -> bytes:
    """Return *value* as something that can be looked up: an ``_id`` may be a document."""
    return bson.encode({"": value})


def _raw(database: Db, collection: str) -> Collection[Any]:
    return database.get_collection(collection, codec_options=RAW)


def _references(document: Mapping[str, Any], path: str) -> list[Any]:
    """Return what stands at *path*, through every array on the way, and an ObjectId that is a text as both."""
    found = list(_values(document, path.replace("[]", "").removesuffix("{}").split(".")))
    return found + [ObjectId(value) for value in found if isinstance(value, str) and ObjectId.is_valid(value)]


def _values(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _values(each, parts)
    elif not parts:
        yield value
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from _values(value[parts[0]], parts[1:])


def raw_documents(
    database: Db, collection: str, query: Document, *, session: Session | None = None
) -> Iterator[RawBSONDocument]:
    """Yield what *query* finds in *collection*, as bytes that are decoded where they are looked into."""
    yield from _raw(database, collection).find(query, session=session)
