"""For Python services: ask for work through the outbox, sign messages that go another way, name people.

Needs MongoDB and the rights of ``compliance_sender`` only; neither Celery nor Redis is imported or asked.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pymongo.write_concern import WriteConcern

from compliance.clock import SystemClock
from compliance.datamap.pseudonym import Pseudonyms, parse_pseudonym_keys
from compliance.errors import ConfigurationError, InvalidPayload
from compliance.jobs.job import RequestId, refuse_reserved, to_request_id
from compliance.mongo import CODEC, Document, Session, driver_errors, open_client
from compliance.mongo import Client as MongoDB
from compliance.roles import OUTBOX, Role
from compliance.settings import DATABASE_NAME, Settings
from worker import signature
from worker.intake import REQUEST_ID, Urgency, parse_request, with_text_ids
from worker.refusal import no_such_task
from worker.tasks import JOBS

__all__ = ["Client", "pseudonym", "sign"]

KINDS = {kind.task: kind for kind in JOBS.values()}


class Client:
    """Asks for work; safe to share between threads, to be made after a fork."""

    def __init__(self, uri: str, *, database: str) -> None:
        """Make a client; it connects at its first use.

        Args:
            uri: A MongoDB connection string of a user with the role ``compliance_sender@<database>``.
            database: The application database, ``MONGODB_DATABASE`` of the workers.

        Raises:
            ConfigurationError: When *uri* is no connection string, which is not repeated, or *database* no name of one.
        """
        if not re.fullmatch(DATABASE_NAME, database):
            raise ConfigurationError("database: expected the name of the application database, such as shop")
        self._database = database
        self._client = open_client(uri, app_name=Role.SENDER.value)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a client as ``COMPLIANCE_SENDER_URI`` and ``MONGODB_DATABASE`` say.

        Raises:
            ConfigurationError: When there is no connection string.
        """
        uri = settings.uri_for(Role.SENDER)
        if uri is None:
            raise ConfigurationError("set COMPLIANCE_SENDER_URI")
        return cls(uri.get_secret_value(), database=settings.mongodb_database)

    def submit(
        self,
        task: str,
        kwargs: Mapping[str, Any],
        *,
        request_id: str,
        priority: int | None = None,
        deadline: datetime | None = None,
        traceparent: str | None = None,
        session: Session | None = None,
    ) -> str:
        """Make a request durable and return its request id; the same request twice is one job.

        Args:
            task: A name of the README's table, such as ``compliance.erasure.request``.
            kwargs: Its fields; ids only, as text, ObjectId or UUID.
            request_id: The idempotency key. Where the outcome of a call is not known, call again with the same one.
            priority: 0 to 9; a higher one goes first.
            deadline: When it should be done, with its zone.
            traceparent: The W3C Trace Context header to go on with.
            session: A transaction of the caller: the request is durable when that commits, and does not exist when it
                aborts. Its own user then needs the role. Errors of the driver pass as they are, for it to try again.

        Raises:
            UnknownName: When there is no such task; the message lists those that there are.
            InvalidPayload: With every fault by field, never a value. Nothing was written. What only the data map of the
                workers knows, such as the form of a subject's id, is said later, by the note under the request id.
            StoreUnavailable: When MongoDB does not answer; whether it was written is not known.
        """
        asked = {"priority": priority, "deadline": deadline}
        urgency = {name: value for name, value in asked.items() if value is not None}
        document = _document(task, kwargs, urgency, request_id=request_id)
        if traceparent is not None and not isinstance(traceparent, str):
            raise InvalidPayload("traceparent: expected text")
        if traceparent is not None:
            document["traceparent"] = traceparent
        client: MongoDB = self._client if session is None else session.client
        compliance = client.get_database(f"{self._database}_compliance", codec_options=CODEC)
        # In a transaction it is the transaction that has a write concern.
        concern = None if session is not None else WriteConcern("majority", j=True)
        with driver_errors(session):
            compliance.get_collection(OUTBOX, write_concern=concern).insert_one(document, session=session)
        return request_id

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _document(task: str, kwargs: Mapping[str, Any], urgency: Mapping[str, Any], *, request_id: str) -> Document:
    kind = KINDS.get(task)
    if kind is None:
        raise no_such_task(KINDS)
    if not isinstance(kwargs, Mapping):
        raise InvalidPayload(f"{task}: kwargs: expected a mapping of names to values")
    values = with_text_ids({**kwargs, **urgency})
    payload, _ = parse_request(kind, values)
    asked = {name: values[name] for name in Urgency.model_fields if name in values}
    stored = {**payload.model_dump(mode="json", exclude_unset=True), **asked}
    return {"task": task, "kwargs": stored, "request_id": _senders_id(request_id)}


def _senders_id(value: str) -> RequestId:
    refuse_reserved(value)
    return to_request_id(value)


def pseudonym(value: str, *, collection: str, keys: str) -> str:
    """Return the ``subject_id`` of a person where the data map has a personal root key.

    Args:
        value: The id of the person as the root document holds it.
        collection: The root collection, ``subject.collection`` of the data map.
        keys: ``COMPLIANCE_PSEUDONYM_KEYS`` of the workers, or its first pair.

    Raises:
        ConfigurationError: When *keys* cannot be read; they are not repeated.
    """
    return Pseudonyms(collection, parse_pseudonym_keys(keys, what="keys")).make(value)


def sign(task: str, kwargs: Mapping[str, Any], *, request_id: str, service: str, key: str) -> dict[str, str]:
    """Return the headers that make a Celery message a signed one.

    Args:
        task: As it is sent.
        kwargs: As they are sent, with or without ``request_id``; values as JSON has them, a time as text.
        request_id: As it is sent.
        service: The name under which the workers know *key*.
        key: The shared secret.

    Raises:
        InvalidPayload: When *kwargs* hold something that JSON has not, or another request id, or where that is none.
    """
    others = {name: value for name, value in kwargs.items() if name != REQUEST_ID}
    if kwargs.get(REQUEST_ID, request_id) != request_id:
        raise InvalidPayload("request_id: is another one in kwargs")
    now = int(SystemClock().now().timestamp())
    return signature.seal(
        task, others, request_id=_senders_id(request_id), service=service, key=key, timestamp=now
    ).to_headers()
