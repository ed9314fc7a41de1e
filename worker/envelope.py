"""What a message must look like before Celery may see it; pure.

Celery and kombu trust the shape of what they read: a text that is no JSON, a body of two parts, a time limit that is a
text end the whole worker, and those that were delivered already come back to the next one. So everything that they
take for granted is looked at here first. A fault is named by a code of ``FAULTS``, never by what the message holds.

Source: Celery message protocol, versions 1 and 2; kombu.transport.virtual.base.Message.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from compliance.errors import InvalidPayload
from compliance.jobs.job import to_request_id

FAULTS = {
    "size": "the body is larger than 1048576 bytes",
    "compression": "compression: expected none; send the message uncompressed",
    "body": "the body is no JSON with content-type application/json",
    "parts": "the body is not [args, kwargs, embed]",
    "args": "args: expected a list, which must be empty: send keyword arguments",
    "kwargs": "kwargs: expected an object",
    "self": "self: Extra inputs are not permitted",
    "embed": "embed: callbacks, chains and chords are not supported",
    "id": "id: expected 1 to 128 printable ASCII characters that are no e-mail address",
    "eta": "eta: expected none; a message is taken when it comes",
    "expires": "expires: expected a time, such as 2026-05-01T12:00:00Z",
    "timelimit": "timelimit: expected two numbers of seconds or nothing",
    "headers": "a header that Celery reads has another type than in its protocol",
}
MAX_BODY_BYTES = 1_048_576
LATEST_ETA = timedelta(minutes=5)
PUT_OFF = "compliance_put_off"  # header of what a worker of ours tries again: for how many seconds
LONGEST_PUT_OFF_SECONDS = 30
BODY_ENCODINGS = ("base64", None)
UNREADABLE = "application/x-unreadable"

_TEXTS = ("root_id", "parent_id", "group", "shadow", "lang", "origin", "argsrepr", "kwargsrepr")
_NOT_SENT = ("stamped_headers", "stamps", "callbacks", "errbacks", "chain", "chord")  # Celery reads them
_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")


def to_envelope(raw: object, *, queue: str, tag: str) -> dict[str, Any] | None:
    """Return *raw*, as it was read from a Redis list, in the shape that kombu takes for granted.

    Args:
        raw: What its JSON holds.
        queue: Where it was read.
        tag: A delivery tag for a message without one.

    Returns:
        None where there is no body to read.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("properties"), dict):
        return None
    properties = raw["properties"]
    if not _is_body(raw.get("body"), properties.get("body_encoding")):
        return None
    routing = properties.get("delivery_info")
    if not isinstance(routing, dict) or not all(
        isinstance(routing.get(key), str) for key in ("exchange", "routing_key")
    ):
        routing = {"exchange": "", "routing_key": queue}
    given_tag = properties.get("delivery_tag")
    return {
        **raw,
        "content-type": _text_or(raw.get("content-type"), UNREADABLE),
        "content-encoding": _text_or(raw.get("content-encoding"), "utf-8"),
        "headers": raw["headers"] if isinstance(raw.get("headers"), dict) else {},
        "properties": {**properties, "delivery_info": routing, "delivery_tag": _text_or(given_tag, tag)},
    }


def empty_envelope(*, queue: str, tag: str) -> dict[str, Any]:
    """Return an envelope in place of one that cannot be read, so that it can be acknowledged and logged."""
    routing = {"exchange": "", "routing_key": queue}
    return {
        "body": "",
        "content-type": UNREADABLE,
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {"delivery_info": routing, "delivery_tag": tag},
    }


def to_protocol_2(headers: object, payload: object) -> tuple[dict[str, Any], object]:
    """Return headers and body of protocol 2, also for a message of protocol 1, whose body holds everything."""
    given = dict(headers) if isinstance(headers, Mapping) else {}
    if "task" in given or not isinstance(payload, dict):
        return given, payload
    names = ("task", "id", "retries", "eta", "expires", "timelimit")
    embed = {name: payload.get(name) for name in _EMBEDDED}
    parts = [payload.get("args") or [], payload.get("kwargs") or {}, embed]
    return {**given, **{name: payload.get(name) for name in names}}, parts


def eta_of(headers: Mapping[str, Any], now: datetime) -> object:
    """Return the time before which a message is not to be taken, as Celery reads it.

    One that a worker of ours put off waits by the clock of who reads it: the two need not agree. A sender who writes
    that header gains as many seconds and nothing else.
    """
    seconds = headers.get(PUT_OFF)
    if isinstance(seconds, int | float) and 0 <= seconds <= LONGEST_PUT_OFF_SECONDS:
        return (now + timedelta(seconds=seconds)).isoformat()
    return headers.get("eta")


def fault_of(headers: Mapping[str, Any], payload: object, *, now: datetime) -> str | None:
    """Return the code of what is wrong with a message of protocol 2, None where Celery can take it."""
    return _fault_of_headers(headers, now) or _fault_of_payload(payload)


def _fault_of_headers(headers: Mapping[str, Any], now: datetime) -> str | None:
    checks = {
        "id": _is_id(headers.get("id")),
        "eta": _is_soon(headers.get("eta"), now),
        "expires": headers.get("expires") is None or _to_time(headers["expires"]) is not None,
        "timelimit": _is_limit(headers.get("timelimit")),
        "headers": _has_known_types(headers),
    }
    return next((code for code, holds in checks.items() if not holds), None)


def _fault_of_payload(payload: object) -> str | None:
    match payload:
        case [list(), dict(kwargs), dict() | None as embed]:
            if "self" in kwargs:
                return "self"
            return "embed" if any((embed or {}).get(name) for name in _EMBEDDED) else None
        case [list(), dict(), _]:
            return "embed"
        case [list(), _, _]:
            return "kwargs"
        case [_, _, _]:
            return "args"
    return "parts"


def _is_body(body: object, encoding: object) -> bool:
    if not isinstance(body, str) or encoding not in BODY_ENCODINGS:
        return False
    try:
        return encoding is None or base64.b64decode(body) is not None
    except (binascii.Error, ValueError):
        return False


def _text_or(value: object, default: str) -> str:
    return value if isinstance(value, str) else default


def _is_id(value: object) -> bool:
    try:
        return bool(to_request_id(value))
    except InvalidPayload:
        return False


def _is_soon(value: object, now: datetime) -> bool:
    if value is None:
        return True
    time = _to_time(value)
    return time is not None and time - now <= LATEST_ETA


def _to_time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) in (0, 2)
        and all(limit is None or isinstance(limit, int | float) for limit in value)
    )


def _has_known_types(headers: Mapping[str, Any]) -> bool:
    texts = (headers.get(name) for name in _TEXTS)
    counts = (headers.get(name) for name in ("retries", "replaced_task_nesting"))
    return (
        all(text is None or isinstance(text, str) for text in texts)
        and all(count is None or (isinstance(count, int) and count >= 0) for count in counts)
        and isinstance(headers.get("headers") or {}, dict)  # the Sentry client of a sender puts a copy of its own there
        and not any(headers.get(name) for name in _NOT_SENT)
    )
