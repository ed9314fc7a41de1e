"""Give documents back what a migration overwrote, where nobody changed them since; nothing that is gone comes back.

| the document | what becomes of it |
| --- | --- |
| holds in these fields what the migration wrote | gets the values from before; they are kept no longer |
| was changed in one of them since | stays as it is, and is told of; the values from before stay until they expire |
| is gone | stays gone; the values go, too |
| is about a person who was erased, or is being erased | stays as it is; the values go |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import bson
from pymongo import DESCENDING
from pymongo.collection import Collection

from compliance.audit.entry import Detail
from compliance.erasure.erased import BEING_ERASED, Erased
from compliance.erasure.sweep import Finder
from compliance.errors import StepFailed
from compliance.mongo import Document, Session, driver_errors
from compliance.roles import PRE_IMAGES
from migrations.command import Command, delete_many, send, update_each, update_many
from migrations.ops.batches import Changed, Hiding, Walk, Work
from migrations.ops.difference import Before, digest, way_back
from migrations.ops.estimate import count_within, update_bytes
from migrations.ops.keyset import BY_ID
from migrations.ops.pre_images import EXACT, SETS
from migrations.sketch import masked_updates
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

UNTOUCHED = {"left": {"$exists": False}}
SHOWN = 5


def restore(ctx: "Hands", collection: str) -> None:
    """Give back what the steps of this revision kept of *collection*, the last step first.

    Raises:
        ConfigurationError: When erased people are known by pseudonyms, and this process has no key to recognise them.
        StepFailed: When some of it has expired, or the server refuses a document as it was.
    """
    step = ctx.begin(Kind.BACKFILL, f"restore {collection}", collection=collection)
    if step is None or ctx.retries:
        return
    sets = _sets(ctx, collection)
    _refuse_expired(ctx, collection, sets)
    people_of(ctx).require_keys()
    ctx.report(f"restore {sum(found['documents'] for found in sets)} documents of {collection}")
    restoring = _Restoring(ctx=ctx, collection=collection)
    going = restoring.walk(step)
    if ctx.is_dry_run:
        _sketch(ctx, going, restoring, sets)
        return
    for found in sets:  # a resumed run finds of the earlier ones what nobody could give back
        restoring.begin(going, found["_id"]["step"])
        going.go()
        _refuse_expired(ctx, collection, sets)
    _finish(ctx, step, collection, going, restoring)


@dataclass(slots=True, kw_only=True)
class _Restoring:
    """Carries out the restoration of one collection.

    Attributes:
        told: Ids of documents that were changed since, up to a few.
    """

    ctx: "Hands"
    collection: str
    told: list[Any] = field(default_factory=list)

    def where(self, step: int) -> Document:
        """Return the filter of what *step* kept."""
        return {"revision": self.ctx.revision, "collection": self.collection, "step": step, **UNTOUCHED}

    def walk(self, step: Step) -> Walk:
        """Return the walk over what is kept; it goes by what is left, and not by a place."""
        where: Document = {"revision": self.ctx.revision, "collection": self.collection, **UNTOUCHED}
        work = Work(
            op="restore",
            collection=PRE_IMAGES,
            where=where,
            change=self._give_back,
            error_budget=0,
            sketch=self._sketch,
        )
        return Walk(ctx=self.ctx, step=step, work=work)

    def begin(self, going: Walk, step: int) -> None:
        """Let *going* begin at the first of what *step* kept, behind all that others did."""
        where, kept = self.where(step), self.ctx.databases.app[PRE_IMAGES]
        going.begin_again(where)
        with driver_errors():
            first = kept.find_one(where, {"_id": 1}, sort=BY_ID, hint=BY_ID)
            before = first and kept.find_one({"_id": {"$lt": first["_id"]}}, {"_id": 1}, sort=[("_id", DESCENDING)])
        if before:
            going.place["last"] = before["_id"]

    @property
    def _people(self) -> Erased:
        return people_of(self.ctx)

    @property
    def _documents(self) -> Collection[Document]:
        return self.ctx.databases.app[self.collection].with_options(codec_options=EXACT)

    def _give_back(self, batch: Document, session: Session) -> Changed:
        found = self._sort(batch, session)
        for command in found.commands(self.collection):
            send(self.ctx, command, session=session)
        for id_ in found.changed:
            self._tell(id_)
        return Changed(documents=len(found.updates))

    def _sketch(self, batch: Document, *, hiding: Hiding) -> int | None:
        """Record what gives a batch back, with the types of values; return what a document takes in the oplog."""
        found = self._sort(batch, None)
        ids = tuple(id_ for id_, _ in found.updates)
        for command in found.commands(self.collection):
            shown = masked_updates(command) if command.collection == self.collection else command
            self.ctx.sketch.add(shown, hiding=(*hiding, *ids))
        if not found.updates:
            return None
        size = sum(update_bytes(self.ctx, self.collection, update) for _, update in found.updates)
        return size // len(found.updates) + update_bytes(self.ctx, PRE_IMAGES, {})

    def _sort(self, batch: Document, session: Session | None) -> "_Batch":
        """Read what is kept of a batch, and the documents as they are; say what becomes of each."""
        kept = self.ctx.databases.app[PRE_IMAGES].with_options(codec_options=EXACT)
        images = list(kept.find(batch, hint=BY_ID, session=session))
        ids = [image["document_id"] for image in images]
        present = {_key(one["_id"]): one for one in self._documents.find({"_id": {"$in": ids}}, session=session)}
        gone = self._people.among(bson.encode(one, codec_options=EXACT) for one in (*images, *present.values()))
        found = _Batch()
        for image in images:
            document = present.get(_key(image["document_id"]))
            if document is None or _is_about(gone, image, document):
                found.settled.append(image["_id"])
                continue
            before = [Before.from_document(stored) for stored in image["before"]]
            if digest(document, (was.path for was in before)) != image["after"]:
                found.left.append(image["_id"])
                found.changed.append(document["_id"])
                continue
            found.updates.append((document["_id"], way_back(before)))
            found.settled.append(image["_id"])
        return found

    def _tell(self, id_: Any) -> None:
        if len(self.told) < SHOWN and id_ not in self.told:
            self.told.append(id_)


@dataclass(slots=True)
class _Batch:
    """What becomes of some pre-images.

    Attributes:
        updates: The ``_id`` of a document, and what gives it back what it was.
        settled: Pre-images that are kept no longer.
        left: Pre-images of documents that were changed since.
        changed: The ids of these documents.
    """

    updates: list[tuple[Any, Document]] = field(default_factory=list)
    settled: list[Any] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)
    changed: list[Any] = field(default_factory=list)

    def commands(self, collection: str) -> list[Command]:
        """Return what is sent for it."""
        commands = update_each(collection, self.updates)
        if self.settled:
            commands.append(delete_many(PRE_IMAGES, {"_id": {"$in": self.settled}}))
        if self.left:
            commands.append(update_many(PRE_IMAGES, {"_id": {"$in": self.left}}, {"$set": {"left": "changed"}}))
        return commands


def _sketch(ctx: "Hands", going: Walk, restoring: _Restoring, sets: Sequence[Document]) -> None:
    """Record the first batch: that of the last step, for what an earlier one wrote is compared once that is undone."""
    whole = going.work.where
    if not sets:
        return
    restoring.begin(going, sets[0]["_id"]["step"])
    going.go()
    first, every = ctx.sketch.step.estimate, count_within(ctx, PRE_IMAGES, whole)[0]
    if first is not None and first.documents:
        share = every / first.documents
        oplog = None if first.oplog_bytes is None else round(first.oplog_bytes * share)
        ctx.sketch.step.estimate = replace(first, documents=every, seconds=first.seconds * share, oplog_bytes=oplog)
    ctx.report("what was changed since is left, and what is gone stays gone: fewer may be given back")


def _finish(ctx: "Hands", step: Step, collection: str, going: Walk, restoring: _Restoring) -> None:
    kept = ctx.databases.app[PRE_IMAGES]
    mine = {"revision": ctx.revision, "collection": collection}
    with driver_errors():
        changed = kept.count_documents({**mine, "left": "changed"})

    def effect(session: Session) -> Mapping[str, Detail]:
        sets = ctx.databases.compliance[SETS]
        sets.delete_many({"_id.revision": ctx.revision, "_id.collection": collection}, session=session)
        return {"documents": going.place["documents"], "changed_since": changed}

    ctx.finish(step, {"op": "restore", "collection": collection, "is_done": True}, effect)
    ctx.report(f"restored {going.place['documents']} documents of {collection}")
    if changed:
        shown = ", ".join(map(str, restoring.told))
        ctx.report(f"{changed} documents of {collection} were changed since and stay as they are: {shown}")


def _sets(ctx: "Hands", collection: str) -> list[Document]:
    mine = {"_id.revision": ctx.revision, "_id.collection": collection}
    with driver_errors():
        return list(ctx.databases.compliance[SETS].find(mine, sort=[("_id.step", DESCENDING)]))


def _refuse_expired(ctx: "Hands", collection: str, sets: Iterable[Document]) -> None:
    now = ctx.databases.server_time()
    expired = [found["expires_at"] for found in sets if found["expires_at"] <= now]
    if expired:
        raise StepFailed(
            f"what {ctx.revision} overwrote in {collection} was kept until {min(expired):%Y-%m-%d %H:%M} UTC; it "
            "cannot be given back: write the way back as a new script"
        )


def people_of(ctx: "Hands") -> Erased:
    """Return the people to whom nothing is given back: those whose erasure has begun, or is complete."""
    return Erased(databases=ctx.databases, pseudonyms=ctx.pseudonyms, stages=BEING_ERASED)


def _is_about(people: Finder, image: Document, document: Document) -> bool:
    return any(people.found_in(bson.encode(one, codec_options=EXACT)) for one in (image, document))


def _key(id_: Any) -> bytes:
    return bson.encode({"": id_})
