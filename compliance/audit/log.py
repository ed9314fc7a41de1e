"""Append to the audit log, and read it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from compliance.audit.entry import MAX_CANONICAL_BYTES, UNKNOWN_CAUSE, Cause, EntityId, Entry
from compliance.audit.stored import read_stored, stored_entries, stored_id
from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError, DuplicateEntry, IntegrityError, InvalidPayload, UnknownName
from compliance.mongo import CODEC, Databases, Document, Session, driver_errors
from compliance.roles import AUDIT_LOG

LENIENT = CODEC.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The log of one application, reached with rights that can insert and find, nothing more.

    Attributes:
        cause: What is known of the request behind the entries that are appended.
    """

    databases: Databases
    cause: Cause = UNKNOWN_CAUSE

    def caused_by(self, cause: Cause) -> "AuditLog":
        """Return the same log for the entries of one request."""
        return replace(self, cause=cause)

    def append(self, entry: Entry, *, session: Session) -> str:
        """Insert *entry* in the transaction of *session* and return its id.

        MUST be called in the transaction that holds the effect. Every error MUST leave that transaction: a denied
        insert does not abort it by itself, so a swallowed error would commit an effect without its entry.

        Raises:
            ConfigurationError: When this process has no key to sign with.
            DuplicateEntry: When the same event was recorded before; the transaction is aborted, treat it as done.
        """
        writer = self.databases.participant
        if not isinstance(writer, Writer):
            raise ConfigurationError("this process has no key to sign audit entries with: set COMPLIANCE_WRITER_KEY")
        document, leaf = writer.sign(entry, self.cause)
        if len(leaf) > MAX_CANONICAL_BYTES:
            raise InvalidPayload(f"an audit entry holds at most {MAX_CANONICAL_BYTES} bytes: {entry.action}")
        try:
            self.databases.audit[AUDIT_LOG].insert_one(document, session=session)
        except DuplicateKeyError:
            raise DuplicateEntry(f"{entry.action} was recorded before as entry {entry.id}") from None
        return entry.id

    def holds(self, entry: Entry, *, session: Session | None = None) -> bool:
        """Whether *entry* was recorded before, as the transaction of *session* sees it.

        For a caller to whom a repeat is nothing new: a repeated insert would abort all else in the transaction.
        """
        return self.databases.audit[AUDIT_LOG].find_one({"_id": entry.id}, {"_id": 1}, session=session) is not None

    def about(self, entity_type: str, entity_id: EntityId) -> Iterator[Document]:
        """Yield all entries about one entity, oldest first."""
        yield from self._find({"entity_type": entity_type, "entity_id": entity_id})

    def of_request(self, request_id: str) -> Iterator[Document]:
        """Yield all entries that one request caused, oldest first."""
        yield from self._find({"request_id": request_id})

    def find(self, entry_id: str) -> Document:
        """Return one entry by its id.

        Raises:
            UnknownName: When there is none.
            IntegrityError: When what is there is not all shown by decoding it, so that it is none as we write them.
        """
        with driver_errors():
            found = stored_entries(self.databases).find_one({"_id": entry_id})
        if found is None:
            raise UnknownName("there is no audit entry with this id; `compliance audit show --json` shows ids")
        return _read(found)

    def _find(self, query: Document) -> Iterator[Document]:
        with driver_errors():
            yield from map(
                _read, stored_entries(self.databases).find(query, sort={"created_at": ASCENDING, "_id": ASCENDING})
            )


def _read(raw: RawBSONDocument) -> Document:
    try:
        return read_stored(raw)
    except ValueError:
        what = f"audit entry {stored_id(raw) or 'with an id that is none'}"
        raise IntegrityError(f"{what} is not as it was written; see `compliance audit verify`") from None
