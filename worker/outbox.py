"""The outbox: a document that a service inserts in its own MongoDB transaction becomes the same job as a message.

The collection is the truth: a document leaves it in the transaction that records its job, or the note why it was
refused. The change stream is a bell only, so it keeps no token: whoever begins to listen looks at the collection first.

Document shape (``<app>_compliance.outbox``)::

    {_id: ObjectId, task: str, kwargs: object, request_id: str, traceparent: str}    the last two are optional
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson
import structlog
from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pydantic import BaseModel, ConfigDict

from compliance.errors import ComplianceError, InvalidPayload, RequestConflict, UnknownName
from compliance.jobs.job import Job, Prefix, RequestId, refuse_reserved, to_request_id
from compliance.mongo import CODEC, Document, Session, driver_errors
from compliance.roles import OUTBOX
from worker.intake import Admitted, Message, admit, record, with_text_ids
from worker.job import JobKind, validate
from worker.refusal import UNKNOWN, Refusal, no_such_task
from worker.services import Services
from worker.tasks import JOBS
from worker.telemetry import metrics, report_error

log = structlog.get_logger(__name__)

ORIGIN = "outbox"
BATCH_DOCS = 100
BATCH_BYTES = 4 * 1024 * 1024
MAX_DOCUMENT_BYTES = 1024 * 1024
AWAIT_MS = 100

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
LENIENT = CODEC.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
# Of a document that is too large only its key travels. The key goes back as the bytes that came.
READ: list[Document] = [
    {"$sort": {"_id": 1}},
    {"$limit": BATCH_DOCS},
    {
        "$project": {
            "_id": 0,
            "key": {"_id": "$_id"},
            "size": {"$bsonSize": "$$ROOT"},
            "document": {"$cond": [{"$lte": [{"$bsonSize": "$$ROOT"}, MAX_DOCUMENT_BYTES]}, "$$ROOT", "$$REMOVE"]},
        }
    },
]
INSERTED: list[Document] = [
    {"$match": {"operationType": "insert", "ns.coll": OUTBOX}},
    {"$project": {"_id": 1}},
]
KINDS = {kind.task: kind for kind in JOBS.values()}


class Request(BaseModel):
    """What a document of the outbox holds beside its ``_id``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    task: str
    kwargs: dict[str, Any] = {}
    request_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Outbox:
    """Takes what services put into the outbox.

    Attributes:
        on_read: Told whenever the stream was read, also when nothing was there.
    """

    services: Services
    on_read: Callable[[], None] = lambda: None

    def follow(self, should_stop: Callable[[], bool]) -> None:
        """Empty the outbox, then again at every insert, until asked to stop."""
        compliance = self.services.databases.compliance
        with compliance.watch(INSERTED, max_await_time_ms=AWAIT_MS) as stream:
            log.info("outbox.following")
            self.drain(should_stop)
            while not should_stop():
                rung = stream.try_next() is not None
                self.on_read()
                if rung:
                    metrics.WATCH_EVENTS.inc(OUTBOX)
                    self.drain(should_stop)

    def drain(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Take batches until the outbox is empty or the process shall stop."""
        while not should_stop() and self._is_waiting():
            self.take()
            self.on_read()

    def take(self) -> None:
        """Take one batch: record its jobs and remove it in one transaction, then ring for them."""
        taken: list[Job | Refusal] = []

        def transaction(session: Session) -> None:
            taken.clear()
            for key, document in self._read(session):
                taken.append(self._take_one(key, document, session))
                self._raw.delete_one(key, session=session)

        self.services.databases.transact(transaction)
        for found in taken:
            if isinstance(found, Job):
                metrics.WATCH_JOBS.inc(OUTBOX, found.kind)
                log.info("outbox.taken", kind=found.kind, request_id=found.request_id)
                self.services.publish(found)
            else:
                metrics.REFUSED.inc(found.kind)
                error = type(found.error).__name__
                log.warning("message.refused", kind=found.kind, request_id=found.request_id, error=error)

    def _is_waiting(self) -> bool:
        """Cheap, for most bells of a burst ring for what was taken already."""
        with driver_errors():
            return self._raw.find_one({}, {"_id": 1}) is not None

    @property
    def _raw(self) -> Any:
        return self.services.databases.compliance.get_collection(OUTBOX, codec_options=RAW)

    def _read(self, session: Session) -> Iterator[tuple[RawBSONDocument, RawBSONDocument | None]]:
        size_bytes = 0
        for row in self._raw.aggregate(READ, session=session):
            yield row["key"], row.get("document")
            size_bytes += row["size"]
            if size_bytes > BATCH_BYTES:
                return

    def _take_one(self, key: RawBSONDocument, document: RawBSONDocument | None, session: Session) -> Job | Refusal:
        found_id = bson.decode(key.raw, LENIENT)["_id"]
        fields: Mapping[str, Any] = {}
        try:
            if document is None:
                raise InvalidPayload(f"the document is larger than {MAX_DOCUMENT_BYTES} bytes")
            fields = bson.decode(document.raw, LENIENT)
            message = to_message(fields, found_id)
            return record(_admit(message, self.services), self.services, session=session)
        except (InvalidPayload, RequestConflict, UnknownName) as error:
            refusal = refusal_of(fields, found_id, error)
            refusal.record(self.services, session)
            return refusal


def _admit(message: Message, services: Services) -> Admitted:
    """Admit *message*; where that fails for no known reason, one document must not keep the others waiting."""
    try:
        return admit(message, services)
    except ComplianceError:
        raise
    except Exception as error:  # noqa: BLE001 - the last place that can keep the others going
        report_error(error, kind=message.kind.name, request_id="none")
        raise InvalidPayload(f"outbox: cannot be read ({type(error).__name__}); this is a bug, Sentry has it") from None


def to_message(fields: Mapping[str, Any], found_id: object) -> Message:
    """Return what a document of the outbox asks for.

    Args:
        fields: The whole document.
        found_id: Its ``_id``.

    Raises:
        InvalidPayload: When it has another shape, a request id of ours, or neither one nor an ``_id`` to make one of.
        UnknownName: When there is no such task; the message lists those that there are.
    """
    request = validate(Request, {name: value for name, value in fields.items() if name != "_id"}, about="outbox")
    refuse_reserved(request.request_id)
    request_id = _derived(found_id) if request.request_id is None else request.request_id
    if request_id is None:
        raise InvalidPayload("outbox: request_id: Field required where the _id is no ObjectId")
    return Message(
        kind=_kind(request.task),
        values=with_text_ids(request.kwargs),
        request_id=request_id,
        origin=ORIGIN,
        traceparent=request.traceparent,
    )


def refusal_of(fields: Mapping[str, Any], found_id: object, error: ComplianceError) -> Refusal:
    """Return the note about a wrong document, under its request id, else its ObjectId, else a random one."""
    task, stand_in = fields.get("task"), RequestId(f"{Prefix.REFUSED}{secrets.token_hex(8)}")
    kind = KINDS[task].name if isinstance(task, str) and task in KINDS else UNKNOWN
    try:
        request_id = to_request_id(fields.get("request_id"))
        refuse_reserved(request_id)
    except InvalidPayload:
        request_id = _derived(found_id) or stand_in
    return Refusal(kind, request_id, ORIGIN, error)


def _kind(task: str) -> JobKind:
    try:
        return KINDS[task]
    except KeyError:
        raise no_such_task(KINDS) from None


def _derived(found_id: object) -> RequestId | None:
    return RequestId(f"{Prefix.OUTBOX}{found_id}") if isinstance(found_id, ObjectId) else None
