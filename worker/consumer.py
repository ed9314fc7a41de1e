"""Celery's consumer, which looks at every message before Celery does: whatever strangers send, the worker lives.

A message for one of our tasks that cannot be read goes on as one that says why, so that its refusal is recorded like
any other. One for no task of ours is logged and dropped: the name of its task is the sender's, and is shown nowhere.
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import structlog
from celery.worker.consumer import Consumer
from kombu.exceptions import KombuError
from kombu.transport import redis as transport
from vine import promise

from compliance.clock import SystemClock
from worker.envelope import FAULTS, MAX_BODY_BYTES, empty_envelope, fault_of, to_envelope, to_protocol_2
from worker.repairs import REPAIRED_VERSIONS

log = structlog.get_logger(__name__)

OURS = "compliance."
FAULT = "compliance_fault"
REQUEST_ID = "request_id"
NO_LIMIT = [None, None]


class CarefulConsumer(Consumer):
    """Hands over to Celery what Celery can take."""

    strategies: Mapping[str, Any]
    connection_errors: tuple[type[Exception], ...]

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], None]:
        """Return what is called with each message."""
        handle = super().create_task_handler(promise)

        def look_first(message: Any) -> None:
            if self._prepare(message):
                handle(message)

        return look_first

    def _prepare(self, message: Any) -> bool:
        fault, payload = _read(message)
        headers, parts = to_protocol_2(message.headers, payload)
        task = headers.get("task")
        if not isinstance(task, str) or not task.startswith(OURS) or task not in self.strategies:
            log.warning("message.unknown_task", fault=fault)
            message.reject_log_error(logging.getLogger(__name__), self.connection_errors)
            return False
        fault = fault or fault_of(headers, parts, now=SystemClock().now())
        if fault is not None:
            log.warning("message.malformed", task=task, fault=fault)
            _rewrite(message, {"task": task, "id": str(uuid.uuid4()), FAULT: fault}, [[], _request_id(parts), {}])
        elif message.headers.get("task") is None:
            _rewrite(message, headers, parts)
        message.headers["timelimit"] = NO_LIMIT  # those of the worker hold; a sender's could kill any job at any moment
        return True


def _read(message: Any) -> tuple[str | None, Any]:
    if len(message.body or "") > MAX_BODY_BYTES:
        return "size", None
    try:
        return None, message.payload
    except (KombuError, ValueError, TypeError, LookupError):
        return "body", None


def _request_id(parts: Any) -> dict[str, Any]:
    match parts:
        case [_, {"request_id": str(request_id)}, _]:
            return {REQUEST_ID: request_id}
    return {}


def _rewrite(message: Any, headers: dict[str, Any], parts: Any) -> None:
    """Change what Celery reads; the message that the broker keeps until the acknowledgement stays as it is."""
    message.headers = headers
    message.body = json.dumps(parts)
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message._decoded_cache = None  # noqa: SLF001 - what was read before


def fault_text(code: object) -> str | None:
    """Return what is wrong with a message by the code in its header, None where it has none."""
    return None if code is None else FAULTS.get(str(code), FAULTS["headers"])


def read_whatever_comes() -> None:
    """Make the Redis transport hand over what is no message as an empty one, instead of ending the worker.

    Does nothing for other versions of kombu, or the second time.

    Source: kombu 5.7, ``Channel._brpop_read``, which reads a list that anybody with the password can write to.
    """
    module: Any = transport
    if not version("kombu").startswith(REPAIRED_VERSIONS) or hasattr(module.Transport, "reads_whatever_comes"):
        return
    loads, deliver = module.loads, module.Transport._deliver  # noqa: SLF001 - what is repaired

    def loads_or_none(text: Any) -> Any:
        try:
            return loads(text)
        except Exception:  # noqa: BLE001 - of JSON, its recursion limit, or kombu's readers of types
            return None

    def to_text(value: Any) -> Any:
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def deliver_sound(self: Any, raw: Any, queue: str) -> None:
        tag = str(uuid.uuid4())
        envelope = to_envelope(raw, queue=queue, tag=tag)
        if envelope is None:
            log.warning("message.unreadable", queue=queue)
        deliver(self, envelope or empty_envelope(queue=queue, tag=tag), queue)

    module.loads, module.bytes_to_str = loads_or_none, to_text
    module.Transport._deliver = deliver_sound  # noqa: SLF001 - what is repaired
    module.Transport.reads_whatever_comes = True
