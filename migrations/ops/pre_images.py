"""Keep what a step overwrites: only the fields that change, in the transaction that changes them, for a limited time.

They are with the application's data, in ``compliance_pre_images``: nobody may read them who may not read that, and
every sweep of an erasure goes there. See ``compliance.erasure.copies`` for their shape.

Document shape (``pre_image_sets``), which steps kept anything; without values::

    {_id: {revision: str, collection: str, step: int}, documents: int, expires_at: date}

``expires_at`` is when the first of them expires.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from bson.codec_options import DatetimeConversion
from bson.errors import InvalidDocument
from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.errors import CollectionInvalid

from compliance.errors import StepFailed
from compliance.mongo import CODEC, Document, Session, driver_errors
from compliance.roles import PRE_IMAGES
from migrations.ops.batches import Change, Changed
from migrations.ops.difference import Unnameable, changes, digest
from migrations.ops.faults import DocumentRefused
from migrations.ops.keyset import BY_ID
from migrations.step import Step

if TYPE_CHECKING:
    from migrations.hands import Hands

SETS = "pre_image_sets"
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=90)
SLICE_DOCS = 200  # whole documents in memory at a time, before and after
TOO_LARGE, DOTTED = 10334, 57
EXACT = CODEC.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)  # also years that Python has not
INDEXES = (
    IndexModel([("expires_at", ASCENDING)], name="ttl_pre_image", expireAfterSeconds=0),
    IndexModel([("collection", ASCENDING), ("document_id", ASCENDING)], name="ix_pre_image_document"),
)


def keeping(ctx: "Hands", step: Step, collection: str, length: timedelta | None, change: Change) -> Change:
    """Return *change*, or with *length* what also keeps for so long what *change* overwrites.

    Raises:
        StepFailed: When *length* is not between a minute and 90 days, or on the way down.
    """
    if length is None:
        return change
    if not SHORTEST <= length <= LONGEST:
        raise StepFailed(
            f"keep_before of {collection}: what is kept is personal data, from {SHORTEST} to {LONGEST.days} days"
        )
    if ctx.script.startswith("down "):
        raise StepFailed(f"keep_before of {collection}: only up keeps what was before; down gives it back")
    ctx.report(f"what it overwrites in {collection} is kept for {length}; that costs as much again")
    _create(ctx)
    return Keeper(ctx=ctx, step=step, collection=collection, length=length).around(change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Keeps what one step overwrites in one collection."""

    ctx: "Hands"
    step: Step
    collection: str
    length: timedelta

    def around(self, change: Change) -> Change:
        """Return what does *change* to some documents after the other, and keeps what they were."""

        def kept(batch: Document, session: Session) -> Changed:
            documents, count = 0, 0
            refused: tuple[tuple[Any, str], ...] = ()
            for before in self._slices(batch, session):
                these = {"_id": {"$in": [document["_id"] for document in before]}}
                changed = change({"$and": [these, batch]}, session)
                documents, refused = documents + changed.documents, refused + changed.refused
                count += self._keep(before, session)
            self._count(count, session)
            return Changed(documents=documents, refused=refused)

        return kept

    @property
    def _documents(self) -> Collection[Document]:
        return self.ctx.databases.app[self.collection].with_options(codec_options=EXACT)

    def _slices(self, batch: Document, session: Session) -> Iterator[list[Document]]:
        ids = [found["_id"] for found in self._documents.find(batch, {"_id": 1}, hint=BY_ID, session=session)]
        for start in range(0, len(ids), SLICE_DOCS):
            these = {"_id": {"$in": ids[start : start + SLICE_DOCS]}}
            yield list(self._documents.find(these, session=session).sort(BY_ID))

    def _keep(self, before: list[Document], session: Session) -> int:
        """Keep what of *before* is not as it was; return of how many documents."""
        ids = [document["_id"] for document in before]
        after = list(self._documents.find({"_id": {"$in": ids}}, session=session).sort(BY_ID))
        pairs = zip(before, after, strict=True)  # an update neither removes a document nor changes its id
        images = [image for old, new in pairs if (image := self._image(old, new)) is not None]
        if not images:
            return 0
        changed = [image["document_id"] for image in images]
        kept = self.ctx.databases.app[PRE_IMAGES].with_options(codec_options=EXACT)
        same = {"revision": self.ctx.revision, "step": self.step.number, "collection": self.collection}
        kept.delete_many({"document_id": {"$in": changed}, **same}, session=session)  # the application wrote since
        try:
            kept.insert_many(images, session=session)
        except InvalidDocument:
            raise DocumentRefused(TOO_LARGE) from None
        return len(images)

    def _image(self, before: Document, after: Document) -> Document | None:
        try:
            were = changes(before, after)
        except Unnameable:
            raise DocumentRefused(DOTTED) from None
        if not were:
            return None
        now = self.ctx.now()
        return {
            "_id": ObjectId(),
            "collection": self.collection,
            "document_id": before["_id"],
            "revision": self.ctx.revision,
            "step": self.step.number,
            "before": [field.to_document() for field in were],
            "after": digest(after, (field.path for field in were)),
            "kept_at": now,
            "expires_at": now + self.length,
        }

    def _count(self, count: int, session: Session) -> None:
        if count:
            this: dict[str, Any] = {"revision": self.ctx.revision, "collection": self.collection}
            more = {"$inc": {"documents": count}, "$min": {"expires_at": self.ctx.now() + self.length}}
            sets = self.ctx.databases.compliance[SETS]
            sets.update_one({"_id": {**this, "step": self.step.number}}, more, upsert=True, session=session)


def _create(ctx: "Hands") -> None:
    """Create the collection of pre-images with its indexes where it is missing."""
    if ctx.is_dry_run:
        return
    with driver_errors():
        with suppress(CollectionInvalid):
            ctx.databases.app.create_collection(PRE_IMAGES)
        ctx.databases.app[PRE_IMAGES].create_indexes(list(INDEXES))
