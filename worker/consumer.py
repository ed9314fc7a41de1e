"""Celery's consumer, which looks at every message before Celery does: whatever strangers send, the worker lives.

A message for one of our tasks that cannot be read goes on as one that says why, so that its refusal is recorded like
any other. One for no task of ours goes on as one for ``REFUSE``, which records that: the name that it had is the
sender's, and is shown nowhere.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import structlog
from celery.worker.consumer import Consumer
from kombu import message as messages
from kombu.exceptions import KombuError
from kombu.transport import redis as transport
from vine import promise

from compliance.clock import Clock, SystemClock
from compliance.errors import InvalidPayload
from compliance.jobs.job import RequestId, to_request_id, to_stand_in
from worker.envelope import FAULTS, MAX_BODY_BYTES, empty_envelope, eta_of, fault_of, to_envelope, to_protocol_2
from worker.repairs import REPAIRED_VERSIONS

log = structlog.get_logger(__name__)

OURS = "compliance."
REFUSE = "compliance.message.refuse"
FAULT = "compliance_fault"
REQUEST_ID = "request_id"
NO_LIMIT = [None, None]


class CarefulConsumer(Consumer):
    """Hands over to Celery what Celery can take."""

    app: Any
    strategies: Mapping[str, Any]
    clock: Clock = SystemClock()

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], None]:
        """Return what is called with each message."""
        handle = super().create_task_handler(promise)

        def look_first(message: Any) -> None:
            self._prepare(message)
            handle(message)

        return look_first

    def _prepare(self, message: Any) -> None:
        now = self.clock.now()
        fault, payload = _read(message)
        headers, parts = to_protocol_2(message.headers, payload)
        headers["eta"] = eta_of(headers, now)
        task = headers.get("task")
        if not isinstance(task, str) or not task.startswith(OURS) or task not in self.strategies:
            log.warning("message.unknown_task", queue=_queue(message, self.app.amqp.queues), fault=fault)
            _rewrite(message, {"task": REFUSE, "id": _id(headers, message)}, [[], _request_id(parts), {}])
        elif fault := fault or fault_of(headers, parts, now=now):
            log.warning("message.malformed", task=task, fault=fault)
            found = {"task": task, "id": _id(headers, message), FAULT: fault}
            _rewrite(message, found, [[], _request_id(parts), {}])
        elif message.headers.get("task") is None:
            _rewrite(message, headers, parts)
        else:
            message.headers = headers
        message.headers["timelimit"] = NO_LIMIT  # those of the worker hold; a sender's could kill any job at any moment
        message.headers["expires"] = None  # Celery would drop it, by our clock; a job has a deadline, and late is done


def _read(message: Any) -> tuple[str | None, Any]:
    if message.headers.get("compression"):
        return "compression", None
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


def _id(headers: Mapping[str, Any], message: Any) -> RequestId:
    """Return the id that the sender gave, else one of the body: a message that comes again has the same one."""
    try:
        return to_request_id(headers.get("id"))
    except InvalidPayload:
        body = message.body or b""
        return to_stand_in(body if isinstance(body, bytes) else str(body).encode(errors="backslashreplace"))


def _queue(message: Any, known: Iterable[str]) -> str:
    """Return where *message* was; what its sender says is taken only where there is such a queue."""
    said = (message.delivery_info or {}).get("routing_key")
    return next((name for name in known if name == said), "(not known)")


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

    No transport decompresses what it reads any more: kombu does so before anybody has looked at the size, and drops
    what it cannot decompress. Does nothing for other versions of kombu, or the second time.

    Source: kombu 5.7, ``Channel._brpop_read``, which reads a list that anybody with the password can write to, and
    ``Message.__init__``.
    """
    module: Any = transport
    message_module: Any = messages
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

    message_module.decompress = lambda body, _method: body
    module.loads, module.bytes_to_str = loads_or_none, to_text
    module.Transport._deliver = deliver_sound  # noqa: SLF001 - what is repaired
    module.Transport.reads_whatever_comes = True
