"""Recognise people who were erased in documents that are about to be written, by the index of their requests.

Every id that stands in the documents is named, and those are looked up: memory grows with the documents at hand, not
with the people who were ever erased. Where people are known by pseudonyms, each text is looked up under all keys, and
no query states it; where their ids are no texts, neither.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from compliance.datamap.pseudonym import SCHEME, VARIABLE, Pseudonyms, is_pseudonym
from compliance.datamap.subject import OPAQUE, Identity
from compliance.erasure.keyed import KeyedNeedles, texts_in
from compliance.erasure.packed import layers
from compliance.erasure.returns import person_of
from compliance.erasure.stage import BEGUN, COMPLETE, REQUESTS, Stage
from compliance.erasure.sweep import Finder, Needles, compile_needles, ids_in, long_ids_in
from compliance.errors import ConfigurationError
from compliance.mongo import Databases, Document, driver_errors

LOOKED_UP = 2000  # ids in one query
BEING_ERASED = (*BEGUN, *COMPLETE)
_READ = ("subject_id", "normalised_id", "tenant", "state", "dry_run", "held", "completed_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The people who were erased.

    Attributes:
        pseudonyms: How people are named, where the data map has a personal root key.
        stages: Of a request that counts.
    """

    databases: Databases
    pseudonyms: Pseudonyms | None
    stages: tuple[Stage, ...] = COMPLETE

    def among(self, documents: Iterable[bytes]) -> Finder:
        """Return what recognises those of the people who stand in *documents*, each the bytes of a BSON document.

        Of somebody else's documents it knows nothing.
        """
        return Recognised.of(self._requests_of(documents), self.pseudonyms)

    def returned_in(self, documents: Iterable[bytes]) -> list[Document]:
        """Return the requests of those of the people who stand in *documents*; of each person the last one."""
        ordered = sorted(self._requests_of(documents), key=_when)
        return list({_person(request): request for request in ordered}.values())

    def require_keys(self) -> None:
        """Look whether this process could recognise everybody who is known by a pseudonym.

        Raises:
            ConfigurationError: When a person who was erased is named by a key that is not there.
        """
        for gap in _gaps(self.pseudonyms):
            found = next(self._find("subject_id", gap), None)
            if found is not None:
                key = str(found["subject_id"]).split(":")[1]
                raise ConfigurationError(
                    f"people who were erased are named by pseudonyms, and this process has no {VARIABLE} with the key "
                    f"{key}: it could bring one of them back; give it the keys of the workers, old ones, too"
                )

    def _requests_of(self, documents: Iterable[bytes]) -> list[Document]:
        """Return the requests of whoever stands in *documents*, as it is or packed."""
        ways = self._ways()
        names = (name for raw in documents for layer in layers(raw) for way in ways for name in way(layer))
        return list({one["_id"]: one for batch in _in_batches(names) for one in self._look_up(batch)}.values())

    def _ways(self) -> list[Callable[[bytes], Iterator[Any]]]:
        """Return what names those who could stand in a document, for the types of ids that requests have."""
        by_text = _opaque_in if self.pseudonyms is None else self._pseudonyms_in
        ways = {"objectId": ids_in, "binData": ids_in, "string": by_text}
        return list({way: None for kind, way in ways.items() if self._is_any({"$type": kind})})

    def _pseudonyms_in(self, raw: bytes) -> Iterator[str]:
        known = self.pseudonyms
        return (name for text in texts_in(raw) for name in known.all_of(text)) if known is not None else iter(())

    def _is_any(self, condition: Document) -> bool:
        with driver_errors():
            return self.databases.compliance[REQUESTS].find_one({"subject_id": condition}, {"_id": 1}) is not None

    def _look_up(self, names: list[Any]) -> list[Document]:
        fields = ("subject_id",) if self.pseudonyms is None else ("subject_id", "normalised_id")
        return [found for field in fields for found in self._find(field, {"$in": names})]

    def _find(self, field: str, condition: Document) -> Iterator[Document]:
        """Yield the requests that count; the query names *field* alone, so that no other index is taken."""
        wanted = dict.fromkeys(_READ, 1)
        with driver_errors():
            found = self.databases.compliance[REQUESTS].find({field: condition}, wanted)
            yield from (one for one in found if one["state"] in self.stages and not _is_kept_back(one))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """Some people, by id or by pseudonym."""

    needles: Needles | None
    keyed: KeyedNeedles | None

    @classmethod
    def of(cls, requests: Iterable[Document], pseudonyms: Pseudonyms | None) -> "Recognised":
        """Return what recognises the people of *requests*."""
        found = [(request["subject_id"], request.get("normalised_id")) for request in requests]
        known = [id_ for id_, _ in found if not is_pseudonym(str(id_))]
        wanted = {str(name) for pair in found if is_pseudonym(str(pair[0])) for name in pair if name is not None}
        return cls(
            needles=compile_needles(Identity({"id": id_}) for id_ in known) if known else None,
            keyed=KeyedNeedles(pseudonyms, frozenset(wanted)) if pseudonyms is not None and wanted else None,
        )

    def found_in(self, raw: bytes) -> bool:
        """Whether an id of any of the people stands in *raw*, the bytes of one or many BSON documents."""
        return any(finder.found_in(raw) for finder in (self.needles, self.keyed) if finder is not None)


def _person(request: Document) -> str:
    return person_of(request["subject_id"], request.get("tenant"))


def _when(request: Document) -> tuple[bool, Any, str]:
    """What is not completed yet is the last."""
    completed_at = request.get("completed_at")
    return completed_at is None, completed_at, request["_id"]


def _is_kept_back(request: Document) -> bool:
    """Whether a request erased nobody: a plan, or one from which a legal hold kept data that must not be lost."""
    return bool(request.get("dry_run") or request.get("held"))


def _opaque_in(raw: bytes) -> Iterator[str]:
    yield from (text for text in texts_in(raw) if OPAQUE.fullmatch(text))
    yield from long_ids_in(raw)


def _gaps(pseudonyms: Pseudonyms | None) -> Iterator[Document]:
    """Yield conditions that together hold for every pseudonym of a key that is not there: ranges of the index."""
    first = f"{SCHEME}:"
    keys = pseudonyms.keys if pseudonyms is not None else ()
    for beginning in sorted(f"{SCHEME}:{key.name}:" for key in keys):
        yield {"$gte": first, "$lt": beginning}
        first = f"{beginning[:-1]};"  # sorts right behind every text with that beginning
    yield {"$gte": first, "$lt": f"{SCHEME};"}


def _in_batches(names: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(names)
    while batch := list(dict.fromkeys(islice(rest, LOOKED_UP))):
        yield batch
