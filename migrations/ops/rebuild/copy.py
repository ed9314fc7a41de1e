"""Fill the copy of a collection, keep it in step with what changes, and compare the two."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.collection import Collection

from compliance.errors import StepFailed
from compliance.mongo import CODEC, Db, Document, Session, driver_errors
from compliance.roles import shadow_of
from migrations.command import Command, insert_each
from migrations.ops.keyset import BY_ID, between, end_of, next_place
from migrations.ops.pre_images import EXACT
from migrations.ops.reason import reason_of

if TYPE_CHECKING:
    from migrations.hands import Hands

PER_DOCUMENT = frozenset({"$set", "$addFields", "$unset", "$project", "$replaceWith", "$replaceRoot", "$match"})
RAW: Any = CODEC.with_options(document_class=RawBSONDocument)

Make = Callable[[Document], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copier:
    """Makes the documents of the copy.

    Attributes:
        function: Makes a new document of an old one, or None where there is to be none; else *pipeline* does.
        pipeline: Stages that look at one document at a time.
    """

    database: Db
    collection: str
    function: Make | None
    pipeline: Sequence[Document]

    @property
    def source(self) -> Collection[Document]:
        """The collection."""
        return self.database[self.collection]

    @property
    def shadow(self) -> Collection[Document]:
        """Its copy."""
        return self.database[shadow_of(self.collection)]

    def made(self, batch: Document, session: Session | None) -> tuple[int, list[Command]]:
        """Return how many documents of a filter there are, and what inserts their copies, which are not there yet."""
        found = list(self._made(batch, session))
        made = [_stored(_same_id(old, new)) for old, new in found if new is not None]
        return len(found), insert_each(shadow_of(self.collection), made)

    def copy_again(self, ids: Sequence[Any], session: Session) -> None:
        """Make the copies of *ids* what they should be now."""
        here = {"_id": {"$in": list(ids)}}
        made = [_same_id(old, new) for old, new in self._made(here, session) if new is not None]
        kept = {_key(new["_id"]) for new in made}
        gone = [id_ for id_ in ids if _key(id_) not in kept]
        if made:
            self.shadow.bulk_write(
                [ReplaceOne({"_id": new["_id"]}, _stored(new), upsert=True) for new in made], session=session
            )
        if gone:
            self.shadow.delete_many({"_id": {"$in": gone}}, session=session)

    def differing(self, where: Document, session: Session) -> list[Any]:
        """Return the ids of a filter by ``_id`` whose copy is not what it should be, in the snapshot of *session*."""
        wanted = {_key(old["_id"]): (old["_id"], _bytes(old, new)) for old, new in self._made(where, session) if new}
        found = {}
        for raw in self.shadow.with_options(codec_options=RAW).find(where, hint=BY_ID, session=session):
            found[_key(raw["_id"])] = (raw["_id"], bytes(raw.raw))
        return [(wanted.get(key) or found[key])[0] for key in {*wanted, *found} if wanted.get(key) != found.get(key)]

    def _made(self, where: Document, session: Session | None) -> Iterator[tuple[Document, Any]]:
        """Yield old documents with the new ones; of a pipeline the old ones have their ``_id`` only."""
        if self.function is not None:
            for old in self.source.with_options(codec_options=EXACT).find(where, hint=BY_ID, session=session):
                yield old, self._call(self.function, old)
            return
        raw = self.source.with_options(codec_options=RAW)
        ids = [found["_id"] for found in self.source.find(where, {"_id": 1}, hint=BY_ID, session=session)]
        stages = [{"$match": where}, *self.pipeline]
        made = {
            _key(new["_id"]): new for new in raw.aggregate(stages, hint={"_id": 1}, session=session) if "_id" in new
        }
        for id_ in ids:
            yield {"_id": id_}, made.pop(_key(id_), None)
        if made:
            raise StepFailed(f"the pipeline of {self.collection} changes the _id of documents; it has to stay")

    def _call(self, function: Make, old: Document) -> Mapping[str, Any] | None:
        try:
            return function(old)
        except ValueError as error:
            raise StepFailed(
                f"a document of {self.collection} cannot be made anew: {reason_of(error)}; correct it first"
            ) from None


def compare(
    ctx: "Hands", copier: Copier, copy_again: Callable[[Sequence[Any]], None], tell: Callable[[int], None]
) -> int:
    """Compare the documents that there are by now with their copies; return how many differed.

    What is inserted meanwhile is followed, so nobody runs after writers here.

    Args:
        ctx: Under the lease.
        copier: Of the collection.
        copy_again: Gets the ids of those that differ.
        tell: Gets about how many were compared so far.
    """
    total = looked = 0
    place: dict[str, Any] = {}
    ends = [(collection, end_of(collection)) for collection in (copier.source, copier.shadow)]
    while end := _further(ends, place, ctx.batch_docs):
        where = between(place, end)
        ctx.check()
        differing = _in_snapshot(ctx, copier, where)
        if differing:
            copy_again(differing)
        total, looked, place = total + len(differing), looked + ctx.batch_docs, end
        tell(looked)
    return total


def _further(
    ends: Iterable[tuple[Collection[Document], Mapping[str, Any]]], place: Mapping[str, Any], limit: int
) -> dict[str, Any]:
    found = (next_place(collection, {**place, **end}, limit=limit) for collection, end in ends)
    return next(filter(None, found), {})


def _in_snapshot(ctx: "Hands", copier: Copier, where: Document) -> list[Any]:
    with driver_errors():
        return ctx.databases.transact(lambda session: copier.differing(where, session))


def _same_id(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    if "_id" not in new or _key(new["_id"]) != _key(old["_id"]):
        raise StepFailed("a document that is made anew has to keep its _id")
    return new


def _bytes(old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    _same_id(old, new)
    if isinstance(new, RawBSONDocument):
        return bytes(new.raw)
    return bson.encode({"_id": new["_id"], **new}, codec_options=EXACT)


def _stored(new: Mapping[str, Any]) -> Any:
    return new if isinstance(new, RawBSONDocument) else dict(new)


def _key(id_: Any) -> bytes:
    return bson.encode({"": id_})
