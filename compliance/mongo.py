"""Connections to MongoDB: the only module that opens one.

A client is made once per process and after the fork; ``open_client`` never connects by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import pymongo
from bson.codec_options import CodecOptions
from pymongo import MongoClient  # noqa: TID251 - this is the one place
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import ExecutionTimeout, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from compliance.errors import ComplianceError, ConfigurationError, StepRefused, StoreUnavailable

Document = dict[str, Any]
Client = MongoClient[Document]
Db = Database[Document]
Session = ClientSession

DUPLICATE_KEY = 11000
CODEC = CodecOptions(document_class=dict[str, Any], tz_aware=True, tzinfo=UTC)
SCHEMES = ("mongodb://", "mongodb+srv://")
UNAUTHORIZED = 13
# What a server says of itself or of the moment, never of the request: it starts, stops, fails over, or gave up waiting.
TRANSIENT_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        43,  # CursorNotFound: the server that held it restarted, or it was idle for too long
        64,  # WriteConcernFailed: written, and the others did not say so in time
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        112,  # WriteConflict
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        175,  # QueryPlanKilled
        189,  # PrimarySteppedDown
        202,  # NetworkInterfaceExceededTimeLimit
        211,  # KeyNotFound: the keys of the cluster's time, shortly after a failover
        237,  # CursorKilled
        246,  # SnapshotUnavailable
        251,  # NoSuchTransaction
        262,  # ExceededTimeLimit
        290,  # TransactionExceededLifetimeLimitSeconds
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11601,  # Interrupted
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
    }
)
TRANSIENT_LABELS = ("TransientTransactionError", "RetryableWriteError", "UnknownTransactionCommitResult")
TRANSACTION_LIMIT = timedelta(seconds=30)
AUTHENTICATION_FAILED = 18
DOCUMENT_VALIDATION_FAILED = 121

T = TypeVar("T")


class Participant(Protocol):
    """Something that is kept in step with the transactions of each thread."""

    def begin(self) -> None:
        """Begin, or begin again: what was written since the last ``begin`` does not count."""

    def commit(self) -> None:
        """What was written since ``begin`` is there."""

    def abandon(self) -> None:
        """Nobody knows whether what was written since ``begin`` is there."""


@dataclass(frozen=True, slots=True)
class Databases:
    """The three databases of one application, reached as one MongoDB user.

    Attributes:
        participant: Told of every transaction, where anything is.
        app: The application's own database.
        audit: ``<app>_audit``: append-only.
        compliance: ``<app>_compliance``: jobs, requests, leases, tokens, checks; also where our users live.
    """

    client: Client
    name: str
    participant: Participant | None = None
    app: Db = field(init=False, repr=False, compare=False)
    audit: Db = field(init=False, repr=False, compare=False)
    compliance: Db = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for attribute, suffix in (("app", ""), ("audit", "_audit"), ("compliance", "_compliance")):
            object.__setattr__(self, attribute, self._database(f"{self.name}{suffix}"))

    def _database(self, name: str) -> Db:
        return self.client.get_database(name, codec_options=CODEC)

    def server_time(self) -> datetime:
        """Return the clock of the server: what leases, delays and schedules go by."""
        with driver_errors():
            now: datetime = self._database("admin").command("hello", codec_options=CODEC)["localTime"]
        return now

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run *work* in one majority transaction and return what it returned.

        *work* may run several times (write conflicts, failover), so it must have no effect outside MongoDB. When the
        result of a commit is unknown only the commit is repeated, never the body. Given up after 30 seconds.
        """
        with (
            driver_errors(),
            pymongo.timeout(TRANSACTION_LIMIT.total_seconds()),
            self._followed() as begin,
            self.client.start_session() as session,
        ):

            def attempt(session: Session) -> T:
                begin()
                return work(session)

            return session.with_transaction(
                attempt, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )

    @contextmanager
    def _followed(self) -> Iterator[Callable[[], None]]:
        """Tell the participant how the block ends; yield what tells it that a transaction begins."""
        if self.participant is None:
            yield lambda: None
            return
        try:
            yield self.participant.begin
        except BaseException:
            self.participant.abandon()
            raise
        self.participant.commit()


def open_client(uri: str, *, app_name: str, direct: bool = False, timeout: timedelta = timedelta(seconds=10)) -> Client:
    """Return a client for *uri* that reads and writes at majority; it connects at its first use.

    Args:
        uri: A MongoDB connection string.
        app_name: Shown in the server's log and ``currentOp``.
        direct: Talk to this one node, whatever its state (before a replica set has a primary).
        timeout: How long to look for a server before ``StoreUnavailable``.

    Raises:
        ConfigurationError: When *uri* is no connection string; the message does not repeat it.
    """
    try:
        if not uri.startswith(SCHEMES):  # the driver takes anything else for a host name
            raise InvalidURI
        return MongoClient(
            uri,
            appname=app_name,
            directConnection=direct,
            serverSelectionTimeoutMS=round(timeout.total_seconds() * 1000),
            tz_aware=True,
            w="majority",
            readConcernLevel="majority",
            retryWrites=True,
        )
    except (InvalidURI, DriverConfigurationError, ValueError):
        raise ConfigurationError(
            "the MongoDB connection string is not valid; expected mongodb://user:password@host:port/?replicaSet=rs0"
        ) from None


@contextmanager
def driver_errors(session: Session | None = None) -> Iterator[None]:
    """Turn errors of the driver into ours.

    Server messages can quote documents (a duplicate key, a failed validator), so only codes pass. Inside the
    transaction of a *session* they stay as they are: ``Databases.transact`` reads their labels to try again.
    """
    try:
        yield
    except PyMongoError as error:
        if session is not None:
            raise
        raise translate(error) from None


def translate(error: PyMongoError) -> ComplianceError:
    """Return our error for one of the driver's."""
    if isinstance(error, OperationFailure) and not isinstance(error, ExecutionTimeout):
        return _from_server(error)
    return StoreUnavailable(f"MongoDB does not answer ({type(error).__name__})")


def _from_server(error: OperationFailure) -> ComplianceError:
    if error.code == UNAUTHORIZED:
        return ConfigurationError(
            "MongoDB refused the operation: this user lacks a privilege; run `compliance doctor --provision`"
        )
    if error.code == AUTHENTICATION_FAILED:
        return ConfigurationError("MongoDB refused the user name or password; check MONGODB_URI")
    if error.code in TRANSIENT_CODES or any(map(error.has_error_label, TRANSIENT_LABELS)):
        return StoreUnavailable(f"MongoDB asked to try again (code {error.code})")
    if error.code == DOCUMENT_VALIDATION_FAILED:
        return StepRefused("MongoDB refused a document: its collection's validator does not allow it (code 121)")
    return StepRefused(f"MongoDB refused an operation (code {error.code})")
