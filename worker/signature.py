"""Signed requests: which service asked, proven by a key that only it and the workers know; pure.

What is signed is this text, in UTF-8, its lines joined by one line feed::

    v1
    <service>
    <timestamp>      Unix time in whole seconds
    <task>
    <request_id>
    <SHA-256 of the canonical JSON of all other keyword arguments, in hex>

The signature is ``v1=`` and the HMAC-SHA256 of it in hex, under the UTF-8 bytes of the key. Canonical JSON is RFC 8785
restricted to what a payload may hold: no fractions, no integer beyond 2^53 - 1, no deep nesting.

A signature is good for long, because a message may lawfully wait for days while workers are away. Sending it again
within that time does no harm: the request id is signed, and the same id twice is one job.

Source: RFC 2104; RFC 8785; RFC 6234.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from compliance.errors import ConfigurationError, InvalidPayload, UntrustedSender
from compliance.settings import CLOCKS_APART

VERSION = "v1"
SERVICE = "compliance_service"
TIMESTAMP = "compliance_timestamp"
SIGNATURE = "compliance_signature"
AHEAD = CLOCKS_APART  # how far the clock of a sender may go before ours
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 8
SHORTEST_KEY = 32
EXAMPLE = "{crm: {keys: [<32 characters or more>], tasks: [compliance.erasure.request]}}"

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"expected {SHORTEST_KEY} characters or more")
    return key


def _not_empty(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not keys:
        raise ValueError("expected one key or more")
    return keys


Key = Annotated[SecretStr, AfterValidator(_long_enough)]
_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a sender says about itself, in headers; not verified yet."""

    service: str
    timestamp: int
    signature: str

    def to_headers(self) -> dict[str, str]:
        """Return the headers of the message."""
        return {SERVICE: self.service, TIMESTAMP: str(self.timestamp), SIGNATURE: self.signature}


def read_seal(headers: Mapping[str, Any]) -> Seal | None:
    """Return the seal that *headers* of a message hold, None unless all three are there and have their form."""
    service, seconds, signature = (headers.get(name) for name in (SERVICE, TIMESTAMP, SIGNATURE))
    if not isinstance(service, str) or not isinstance(signature, str) or not _SECONDS.fullmatch(str(seconds)):
        return None
    return Seal(service=service, timestamp=int(str(seconds)), signature=signature)


def seal(task: str, kwargs: Mapping[str, Any], *, request_id: str, service: str, key: str, timestamp: int) -> Seal:
    """Return the seal of one request.

    Args:
        task: The public name, such as ``compliance.erasure.request``.
        kwargs: As they will stand in the message, without ``request_id``.
        request_id: The idempotency key.
        service: The name under which the workers know the key.
        key: The shared secret.
        timestamp: Unix time in whole seconds.

    Raises:
        InvalidPayload: When *kwargs* have no canonical JSON.
    """
    text = signed_text(task, kwargs, request_id=request_id, service=service, timestamp=timestamp)
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return Seal(service=service, timestamp=timestamp, signature=f"{VERSION}={digest}")


def signed_text(task: str, kwargs: Mapping[str, Any], *, request_id: str, service: str, timestamp: int) -> str:
    """Return the text that is signed; see the module."""
    digest = hashlib.sha256(canonical_json(kwargs)).hexdigest()
    return "\n".join((VERSION, service, str(timestamp), task, request_id, digest))


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one way to write *value*: sorted names, no white space, UTF-8, nothing escaped that need not be.

    Raises:
        InvalidPayload: When it holds something that languages write differently.
    """
    try:
        return json.dumps(_plain(value, MAX_DEPTH), separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidPayload("cannot be signed: holds text that is no Unicode") from None


def _plain(value: object, depth: int) -> object:
    if depth == 0:
        raise InvalidPayload(f"cannot be signed: nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | str() | bool():
            return value
        case int() if abs(value) <= MAX_INTEGER:
            return int(value)
        case list() | tuple():
            return [_plain(element, depth - 1) for element in value]
        case Mapping():
            names = sorted(map(str, value), key=lambda name: name.encode("utf-16-be", "surrogatepass"))
            return {name: _plain(value[name], depth - 1) for name in names}
    raise InvalidPayload("cannot be signed: holds something else than text, whole numbers, true, false and null")


class Sender(BaseModel):
    """A service that may ask.

    Attributes:
        keys: Any of them is good, so that a new one can be brought in before the old one goes.
        tasks: What it may ask for; all tasks where absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: Annotated[tuple[Key, ...], AfterValidator(_not_empty)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class Keyring(RootModel[Annotated[dict[ServiceName, Sender], Field(min_length=1)]]):
    """The services whose messages are taken, by name; no representation shows a key."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the keyring that YAML or JSON *text* holds.

        Raises:
            ConfigurationError: Naming the faults by place, never a value.
        """
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError:
            faults = [f"expected YAML or JSON, such as {EXAMPLE}"]
        except ValidationError as error:
            faults = sorted({_fault(found["loc"], found["msg"]) for found in error.errors(include_input=False)})
        raise ConfigurationError(f"COMPLIANCE_SIGNING_KEYS: {'; '.join(faults)}") from None

    @property
    def named_tasks(self) -> frozenset[str]:
        """Every task that some service is limited to."""
        return frozenset(task for sender in self.root.values() for task in sender.tasks or ())

    def verify(
        self,
        given: Seal | None,
        task: str,
        kwargs: Mapping[str, Any],
        *,
        request_id: str,
        now: datetime,
        window: timedelta,
    ) -> str:
        """Return the name of the service that sealed this very request lately, and may ask for it.

        Raises:
            UntrustedSender: With the reason, and nothing that the message holds.
        """
        if given is None:
            raise UntrustedSender("the message is not signed, and only signed messages are taken here")
        sender = self.root.get(given.service)
        if sender is None:
            raise UntrustedSender("the message is signed by a service that is not known here")
        if not any(_fits(given, key, task, kwargs, request_id) for key in sender.keys):
            raise UntrustedSender(f"the signature of {given.service} does not fit the message")
        age = now.timestamp() - given.timestamp
        if age > window.total_seconds():
            raise UntrustedSender(f"the signature is older than {window.total_seconds():.0f} seconds")
        if age < -AHEAD.total_seconds():
            raise UntrustedSender(f"the signature is from a time more than {AHEAD.total_seconds():.0f} seconds ahead")
        if sender.tasks is not None and task not in sender.tasks:
            raise UntrustedSender(f"{given.service} may not ask for {task}")
        return given.service


def _fits(given: Seal, key: SecretStr, task: str, kwargs: Mapping[str, Any], request_id: str) -> bool:
    try:
        expected = seal(
            task,
            kwargs,
            request_id=request_id,
            service=given.service,
            key=key.get_secret_value(),
            timestamp=given.timestamp,
        )
        return hmac.compare_digest(expected.signature.encode(), given.signature.encode())
    except (InvalidPayload, UnicodeEncodeError):
        return False


def _fault(location: tuple[int | str, ...], message: str) -> str:
    """Name the place by what this module knows; a key in a wrong place must not be shown as a name."""
    known = [str(part) for part in location if isinstance(part, int) or part in Sender.model_fields]
    place = ".".join(known) or ("a service" if location else f"expected services with their keys, such as {EXAMPLE}")
    return f"{place}: {message}"
